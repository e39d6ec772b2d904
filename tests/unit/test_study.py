"""The study of simulated faults: its goal holds, its figures are what the code makes, a scenario is its seed."""

import json
import math

import pytest

from tests.study.__main__ import BEGIN, CASES, CLIENTS, END, FIGURES, OUT, SEEDS, cell, table
from tests.study.scenario import EvidenceKind, Setting, play

COMMITTED = json.loads((OUT / FIGURES).read_text(encoding="utf-8"))


@pytest.mark.parametrize("clients", [2, 3, 5, 8, 13, 16])
def test_a_silent_culprit_is_alone_after_log2_n_plus_1_faults(clients: int) -> None:
    setting = Setting(clients=clients, evidence=EvidenceKind(), gap=60, retries=20)
    for seed in range(5):
        ending = play(setting, seed)
        assert ending.alone_at is not None
        assert ending.alone_at <= math.ceil(math.log2(clients)) + 1
        assert ending.named == [True]


def test_a_certain_name_outweighs_a_wrong_one() -> None:
    endings = [play(Setting(clients=4, evidence=EvidenceKind(log=1.0, wrong=1.0), gap=60), seed) for seed in range(20)]
    assert {tuple(one.named) for one in endings} == {(True,)}


def test_wrong_evidence_alone_does_name_a_bystander() -> None:
    """The scenario can tell right from wrong."""
    assert False in play(Setting(clients=4, evidence=EvidenceKind(wrong=1.0), gap=60), 1).named


def test_a_scenario_is_its_seed() -> None:
    setting = Setting(clients=6, gap=60, churn=0.3, evidence=EvidenceKind(xid=0.3, wrong=0.3, deaf=0.5))
    assert play(setting, 3) == play(setting, 3)
    assert len({str(play(setting, seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize("case", CASES)
def test_the_committed_figures_are_what_the_code_makes(case: str) -> None:
    assert COMMITTED["seeds"] == SEEDS
    assert cell(case, 2) == COMMITTED["cells"][case]["2"]
    assert set(COMMITTED["cells"][case]) == set(map(str, CLIENTS))


def test_the_page_has_the_committed_figures() -> None:
    text = (OUT / "README.md").read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0].strip() == table(COMMITTED["cells"]).strip()
