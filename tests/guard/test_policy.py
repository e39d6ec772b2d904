"""The policy in user space, under ASan and UBSan: its table of cases, and 20000 random sequences against its promise."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guard.kernels import MODULE
from tests.guard.modules import run

FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")

BREAKAGES = {
    "deadline": ("space->state == MG_SINKING && mg_too_old", "0 && mg_too_old"),
    "holds": ("space->holds >= limits->max_holds", "0"),
    "windows": ("space->windows >= limits->max_windows", "0"),
    "for good": ("if (space->state == MG_GIVEN_UP)", "if (0)"),
    "repeats": ("space->repeats >= MG_REPEATS || ", ""),
    "late repeats": ("MG_REPEATS || mg_too_old(limits, space, now_ns)", "MG_REPEATS"),
    "off": ("if (!limits->enabled)", "if (0)"),
    "rate": ("full + share > now_ns + MG_MINUTE_NS", "0"),
    "each user's own": ("rates->user[i].full_ns && rates->user[i].uid == uid", "rates->user[i].full_ns"),
    "who is forgotten": ("rates->user[i].full_ns < rates->user[at].full_ns", "0"),
    "late success": ("if (space->state != MG_SINKING)", "if (0)"),
}
"""Safety rules of the policy, and how to break each."""


def test_policy_keeps_its_promise(tmp_path: Path) -> None:
    program = tmp_path / "policy_test"
    run("gcc", *FLAGS, *SANITIZED, "-o", program, MODULE / "tests" / "policy_test.c")
    assert "random sequences kept the promise" in run(program)


@pytest.mark.parametrize("rule", BREAKAGES)
def test_a_broken_rule_is_noticed(rule: str, tmp_path: Path) -> None:
    old, new = BREAKAGES[rule]
    source = (MODULE / "mg_policy.h").read_text()
    assert source.count(old) == 1
    (tmp_path / "mg_policy.h").write_text(source.replace(old, new))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "policy_test.c").write_text((MODULE / "tests" / "policy_test.c").read_text())
    program = tmp_path / "policy_test"
    run("gcc", "-O1", "-o", program, tmp_path / "tests" / "policy_test.c")
    done = subprocess.run([program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode
    assert "Assertion" in done.stderr
