"""The demo's account says what happened, and a promise that was not kept shows in it."""

from tests.demo import programs
from tests.demo.__main__ import SCENARIOS
from tests.demo.result import Result, account


def test_a_scenario_that_held() -> None:
    result = Result(
        name="trap-mps", gpu="simulated", bystanders=3, bit_identical=True, recovery_ms=[9.4, 4.6], culprit_named=True
    )
    result.require(True, "never shown")
    text = account([result])
    assert text.splitlines()[2].split() == "trap-mps 3 0 0 yes 5 to 9 named nothing yes".split()
    assert result.as_json()["held"] is True
    assert "name" not in result.as_json()


def test_a_broken_promise_is_told() -> None:
    result = Result(name="unmodified", gpu="simulated", bystanders=1, bystanders_lost=1, bit_identical=False)
    result.residue = ["process 7"]
    result.require(False, "job 3 is FAILED")
    text = account([result])
    assert text.splitlines()[2].split() == "unmodified 1 1 0 NO - - 1 no".split()
    assert text.splitlines()[-1] == "BROKEN unmodified: job 3 is FAILED"
    assert result.as_json()["held"] is False


def test_the_names_are_those_of_the_plan() -> None:
    names = ("illegal-address", "trap", "recovery-impossible", "unmodified", "nobody-asked")
    assert all(scenario.startswith(names) for scenario in SCENARIOS)
    assert {name for name in names for scenario in SCENARIOS if scenario.startswith(name)} == set(names)
    short = [name for name, (_, short, _) in SCENARIOS.items() if short]
    assert all(any(scenario.startswith(name) for scenario in short) for name in names)


def test_progress_is_read_from_whole_lines() -> None:
    assert programs.last_step("") == -1
    assert programs.last_step("9 0x1p0\n19 0x1p") == 9
    assert programs.last_step("9 0x1p0\n19 0x1p0\n") == 19
