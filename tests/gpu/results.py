"""The record of a run, whole on disk at every moment: an experiment that has ended is in results.json, one that runs has its `NAME.found`.

`read` puts the two together, so that a run that was killed loses at most the entry it was about to write.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = "results.json"
MOST_LOGS = 12 << 20
"""Bytes of logs.txt: a machine may give back files of 16 MiB at most."""


def replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


class Results:
    def __init__(self, out: Path, **head: Any) -> None:
        self.out, self.told = out, {**head, "experiments": {}}
        out.mkdir(parents=True, exist_ok=True)
        for path in out.glob("*.found"):
            path.unlink()
        (out / "logs.txt").unlink(missing_ok=True)
        self.save()

    def save(self) -> None:
        replace(self.out / FILE, json.dumps(self.told, indent=1) + "\n")

    def note(self, **values: Any) -> None:
        self.told |= values
        self.save()

    def add(self, name: str, result: dict[str, Any], text: str = "") -> None:
        self.told["experiments"][name] = result
        self.save()
        (self.out / f"{name}.found").unlink(missing_ok=True)
        log = self.out / "logs.txt"
        with log.open("a") as logs:
            if log.stat().st_size + len(text) < MOST_LOGS:
                logs.write(text)


def read(path: Path) -> dict[str, Any]:
    """The experiments of a run, also of one that was killed; `path`: its results.json."""
    found: dict[str, Any] = json.loads(path.read_text())["experiments"]
    for part in sorted(path.parent.glob("*.found")):
        if part.stem not in found:
            found[part.stem] = {"how": "the run was killed in it", "found": json.loads(part.read_text())}
    return found


def joined(paths: Iterable[Path]) -> dict[str, Any]:
    """Several runs' experiments as one; of one that stands in several, the last that found something."""
    found: dict[str, Any] = {}
    for path in paths:
        for name, one in read(path).items():
            if one.get("found") or name not in found:
                found[name] = one
    return found
