"""`mpsr guard test`: the judgement of what its job left, and the job itself."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from resilience.adapters.gpu import guard
from resilience.contract import exit_code
from resilience.drill import guard_test, hooks
from resilience.drill.judge import Left
from resilience.model.guard import Level
from tests.unit.test_imports import PACKAGE

COUNTS = {
    "level": "on",
    "driver": "580.142",
    "cancels": ["volta", "hopper"],
    "faults": 10,
    "cancels_seen": 9,
    "strays": 1,
    "isolated": 4,
}
NEW = COUNTS | {"faults": 30, "cancels_seen": 29, "isolated": 5}


def left(before: object, after: object, **changes: str) -> Left:
    files = {
        "before.log": json.dumps(before) + "\n",
        "before.status": "0\n",
        "look.status": "0\n",
        "culprit.status": "137\n",
        "after.log": json.dumps(after) + "\n",
        "after.status": "0\n",
    }
    return Left(job=7, state="COMPLETED", restarts=0, files=files | changes, records=())


def test_a_fault_that_was_met_and_sunk() -> None:
    rows = guard_test.rows(left(COUNTS, NEW))
    assert all(row.held for row in rows)
    assert [row.seen for row in rows] == [
        "on; hooks the cancels of volta, hopper in driver 580.142",
        "illegal-address; exit status 137",
        "20 faults, 20 cancels of them, 0 without a record",
        "the fault was sunk",
    ]


def test_a_module_that_is_off_is_tested_too() -> None:
    off, after = COUNTS | {"level": "off"}, NEW | {"level": "off", "isolated": 4}
    rows = guard_test.rows(left(off, after))
    assert all(row.held for row in rows)
    assert rows[-1].seen == "not tried: the module is off"


@pytest.mark.parametrize(
    ("after", "changes", "wrong"),
    [
        (COUNTS, {}, ["hooks", "isolation"]),
        (NEW | {"cancels_seen": 9}, {}, ["hooks"]),
        (NEW | {"strays": 2}, {}, ["hooks"]),
        (NEW | {"isolated": 4}, {}, ["isolation"]),
        (NEW, {"culprit.status": "0\n"}, ["fault"]),
        (NEW, {"after.status": "1\n", "after.log": "drill: the guard module is not loaded\n"}, ["hooks"]),
        (NEW, {"look.status": "1\n", "look.log": "drill: process 7 of uid 1 is on GPU-1\n"}, ["fault"]),
        (NEW, {"before.status": "1\n", "before.log": "drill: the guard module is not loaded\n"}, ["module"]),
        (NEW, {"before.status": ""}, ["module"]),
    ],
)
def test_what_did_not_hold_is_said(after: object, changes: dict[str, str], wrong: list[str]) -> None:
    assert [row.what for row in guard_test.rows(left(COUNTS, after, **changes)) if not row.held] == wrong


def test_no_fault_without_module_or_beside_a_stranger(tmp_path: Path) -> None:
    """The script as bash runs it, with srun's place taken by a function: which steps are started."""
    for before, look, steps in [(0, 0, "before look culprit after"), (1, 0, "before look"), (0, 1, "before look")]:
        script = guard_test.script("python3")
        body = script[script.index("step before") :]
        fake = f'step() {{ echo "$1"; case $1 in before) echo {before};; look) echo {look};; *) echo 0;; esac >"$1.status"; }}\n'
        done = subprocess.run(["bash", "-euc", fake + body], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split() == steps.split()


def test_the_step_tells_what_the_hooks_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its line is what the judgement reads, and as long as it comes."""
    monkeypatch.setattr(guard, "level", lambda: Level.ON)
    values = {"cancels": "volta hopper", "faults": 123456, "cancels_seen": 123456, "strays": 0, "isolated": 12345}
    for name, value in values.items():
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "version").write_text("580.142\n")
    seen = guard.found(str(tmp_path), str(tmp_path / "version"))
    monkeypatch.setattr(guard, "found", lambda: seen)
    assert hooks.main() == exit_code("ok")
    said = capsys.readouterr().out
    rows = guard_test.rows(left(None, None, **{"before.log": f"some word of srun\n{said}", "after.log": said}))
    assert [row.what for row in rows if not row.held] == ["hooks", "isolation"]
    assert rows[0].seen == "on; hooks the cancels of volta, hopper in driver 580.142"


@pytest.mark.skipif(os.path.exists(guard.DEVICE), reason="the module is loaded here")
def test_without_the_module_the_step_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert hooks.main() == exit_code("failed")
    assert capsys.readouterr().out == "drill: the guard module is not loaded, so no fault is made\n"


def test_the_steps_are_modules_of_ours() -> None:
    script = guard_test.script("/opt/my python/bin/python3")
    assert "'/opt/my python/bin/python3' -m resilience.drill.hooks" in script
    for name in ("hooks", "alone", "culprit"):
        assert f"resilience.drill.{name}" in script
        assert (PACKAGE / "drill" / f"{name}.py").exists()
