"""The open questions, the experiments, the profile and the page about them say the same."""

import datetime

import pytest

from tests.gpu.experiments import LIMITS
from tests.gpu.questions import PAGE, load, page
from tests.gpu.verdicts import VERDICTS, ExperimentOutcome, outcome, outcomes
from tests.gpusim import profile

HYPOTHESES = [f"H{number}" for number in range(1, 12)]
EXPERIMENTS = [f"E{number}" for number in range(1, 24)]


def test_every_question_has_an_experiment_or_a_reason() -> None:
    questions = load()
    assert set(HYPOTHESES + EXPERIMENTS) <= set(questions)
    assert [name for name, one in questions.items() if not one.experiments and not one.left_out] == []


def test_every_hypothesis_has_an_experiment_and_an_assumption() -> None:
    assert [name for name in HYPOTHESES if not load()[name].experiments] == []
    assert set(HYPOTHESES) <= {one.id for one in profile.load().values()}


def test_questions_name_experiments_that_exist_and_miss_none() -> None:
    named = {name for one in load().values() for name in one.experiments}
    assert named == set(LIMITS)


@pytest.mark.parametrize("one", profile.load().values(), ids=lambda one: one.name)
def test_an_assumption_has_a_verdict_or_a_reason(one: profile.Assumption) -> None:
    assert bool(one.not_asked) != (one.name in VERDICTS)
    assert one.text
    assert one.source
    assert isinstance(one.date, datetime.date)


def test_nothing_is_confirmed_without_a_committed_run() -> None:
    """An entry may say so when its source names a directory of docs/measurements, or when it is about programs that need no GPU."""
    for one in profile.load().values():
        named = [folder for folder in PAGE.parent.iterdir() if folder.is_dir() and folder.name in one.source]
        assert not one.confirmed or named or one.source.startswith("recorded from the real daemon"), one.name


def test_the_page_is_fresh() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "python3 -m tests.gpu.questions writes it"


def test_a_run_that_did_not_get_anywhere_gives_no_verdicts() -> None:
    seen = outcomes({"two_servers": {"how": "stopped after 45 s"}})
    assert {one.agrees for one in seen} == {None}
    assert [one for one in seen if not one.why] == []


def test_a_run_on_a_gpu_that_nobody_can_use_gives_no_verdicts() -> None:
    """Found with the real driver 550 on a machine without a GPU: memory that was never made passed for clean."""
    found = {
        "environment": {"found": {"plain": {"code": 100}}},
        "zeroing": {"found": {"outside": {"peeks": 16, "dirty": 0, "codes": [3]}}},
    }
    one = outcome("fresh_memory", found)
    assert (one.agrees, one.why) == (None, "environment: no process can use the GPU (CUDA error 100)")


def test_a_verdict_that_differs_says_so() -> None:
    found = {"limits": {"how": "ended with status 0", "found": {"accepted": 60, "refused_with": 808}}}
    assert outcome("client_limit", found) == ExperimentOutcome(
        name="client_limit", id="E20", assumed=48, seen=60, agrees=False
    )
