"""`python -m tests.study`: all cells of the study, into docs/measurements (figures, plots, and the table of its README).

Takes some minutes on one core. tests/unit/test_study.py makes the small cells again and compares.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from tests.study.plot import lines
from tests.study.scenario import EvidenceKind, Setting, play

OUT = Path(__file__).parents[2] / "docs/measurements"
FIGURES = "2026-11-30-simulated-attribution.json"
CLIENTS = (2, 4, 8, 16, 32, 48)
SEEDS = 100
_MINUTE, _HOUR = 60.0, 3600.0
CASES: dict[str, dict[str, Any]] = {
    "silent": {"evidence": EvidenceKind(), "gap": _MINUTE, "retries": 20},
    "silent, 3 retries": {"evidence": EvidenceKind(), "gap": _MINUTE},
    "silent, a fault in 30 min": {"evidence": EvidenceKind(), "gap": 30 * _MINUTE, "retries": 20},
    "silent, a fault in 3 h": {"evidence": EvidenceKind(), "gap": 3 * _HOUR, "retries": 20},
    "silent, 1 of 10 jobs changes": {"evidence": EvidenceKind(), "gap": _MINUTE, "retries": 20, "churn": 0.1},
    "half of the clients die mute": {"evidence": EvidenceKind(deaf=0.5), "gap": _MINUTE, "retries": 20},
    "Xid names it, 1 of 2": {"evidence": EvidenceKind(xid=0.5), "gap": _MINUTE, "retries": 20},
    "log names it, 9 of 10": {"evidence": EvidenceKind(log=0.9), "gap": _MINUTE, "retries": 20},
    "Xid wrong, 1 of 10": {"evidence": EvidenceKind(wrong=0.1), "gap": _MINUTE, "retries": 20},
    "Xid wrong, 1 of 10, log 9 of 10": {"evidence": EvidenceKind(wrong=0.1, log=0.9), "gap": _MINUTE, "retries": 20},
}
BEGIN, END = "<!-- made by python -m tests.study -->", "<!-- end of the study -->"


def cell(case: str, clients: int, seeds: int = SEEDS) -> dict[str, float | int | None]:
    endings = [play(Setting(clients=clients, **CASES[case]), seed) for seed in range(seeds)]
    alone = [one.alone_at for one in endings if one.alone_at is not None]
    names = [right for one in endings for right in one.named]
    return {
        "scenarios": seeds,
        "faults": sum(one.faults for one in endings),
        "stopped": len(alone),
        "mean_faults": round(mean(alone), 2) if alone else None,
        "most_faults": max(alone, default=None),
        "named_right": sum(names),
        "named_wrong": len(names) - sum(names),
        "hurt_twice": round(mean(one.twice for one in endings), 2),
    }


def goal(clients: int) -> float:
    return math.log2(clients) + 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.study", description=__doc__)
    parser.parse_args()
    cells: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for case in CASES:
        cells[case] = {}
        for clients in CLIENTS:
            cells[case][str(clients)] = found = cell(case, clients)
            print(f"{case:33} {clients:3}  {found}", flush=True)
    asked = {case: {**given, "evidence": asdict(given["evidence"])} for case, given in CASES.items()}
    figures = {"simulated": True, "seeds": SEEDS, "cases": asked, "cells": cells}
    (OUT / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    _draw(cells)
    page = OUT / "README.md"
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{table(cells)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def table(cells: dict[str, dict[str, dict[str, float | int | None]]]) -> str:
    """Of all numbers of clients together, but for the faults, which are those of 2, 16 and 48."""
    heads = (
        "scenario",
        "culprit stopped",
        "faults until then: mean (most) of 2, 16, 48 clients",
        "culprit named",
        "bystander named",
        "bystanders hurt twice, of 2, 16, 48 clients",
    )
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for case, by in cells.items():
        every = list(by.values())
        stopped = sum(int(one["stopped"] or 0) for one in every)
        faults = ", ".join(_faults(by[count]) for count in ("2", "16", "48"))
        right = sum(int(one["named_right"] or 0) for one in every)
        wrong = sum(int(one["named_wrong"] or 0) for one in every)
        twice = ", ".join(f"{by[count]['hurt_twice']:g}" for count in ("2", "16", "48"))
        rows.append(
            f"| {case} | {stopped} of {sum(int(one['scenarios'] or 0) for one in every)} | {faults} | {right} | {wrong} | {twice} |"
        )
    return "\n".join(rows) + "\n"


def _faults(found: dict[str, float | int | None]) -> str:
    return "–" if found["mean_faults"] is None else f"{found['mean_faults']:g} ({found['most_faults']})"


def _draw(cells: dict[str, dict[str, dict[str, float | int | None]]]) -> None:
    def values(case: str, key: str) -> Sequence[float | None]:
        return [cells[case][str(count)][key] for count in CLIENTS]

    def share(case: str) -> Sequence[float | None]:
        return [
            100 * (twice or 0) / (count - 1) for count, twice in zip(CLIENTS, values(case, "hurt_twice"), strict=True)
        ]

    faults = {
        "silent": values("silent", "mean_faults"),
        "1 of 10 jobs changes": values("silent, 1 of 10 jobs changes", "mean_faults"),
        "log names it, 9 of 10": values("log names it, 9 of 10", "mean_faults"),
        "goal: log2 n + 1": [goal(count) for count in CLIENTS],
    }
    title = "Faults until the culprit is alone or named (simulated)"
    (OUT / "simulated-faults.svg").write_text(lines(title, "mean faults", CLIENTS, faults, 8), encoding="utf-8")
    hurt = {
        "silent": share("silent"),
        "1 of 10 jobs changes": share("silent, 1 of 10 jobs changes"),
        "Xid names it, 1 of 2": share("Xid names it, 1 of 2"),
        "log names it, 9 of 10": share("log names it, 9 of 10"),
    }
    title = "Bystanders that one culprit hits twice (simulated)"
    (OUT / "simulated-hurt.svg").write_text(lines(title, "% of bystanders", CLIENTS, hurt, 100), encoding="utf-8")


if __name__ == "__main__":
    main()
