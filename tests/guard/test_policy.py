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
    "deadline": ("space->spent_ns > limits->deadline_ns", "0"),
    "deadline of the client": ("space->spent_ns += now - space->since_ns;", "space->spent_ns = now - space->since_ns;"),
    "a sunk fault's time": ("space->spent_ns += now_ns - space->since_ns;", ""),
    "holds": ("space->holds >= limits->max_holds", "0"),
    "rounds": ("!space->holds || va <= *newest", "1"),
    "rounds of each GPU": ("gpu % MG_ORDERS", "0"),
    "windows": (
        "space->windows >= limits->max_windows || space->windows >= MG_WINDOWS)\n\t\t\treturn",
        "0)\n\t\t\treturn",
    ),
    "windows of one run": ("space->windows >= limits->max_windows || space->windows >= MG_WINDOWS) {", "0) {"),
    "for good": ("if (space->state == MG_GIVEN_UP)", "if (0)"),
    "repeats": ("space->holds - sunk->holds > MG_REPEATS", "0"),
    "off": ("if (!limits->enabled)", "if (0)"),
    "late success": ("\tif (space->state != MG_SINKING)\n\t\treturn;", ""),
    "no window over another": ("sunk->base + sunk->length > begin", "0"),
    "few windows": ("for (i = 0; i < space->windows && bytes < MG_LARGEST; i++)", "for (; 0;)"),
    "rate": ("full + share > now_ns + MG_MINUTE_NS", "0"),
    "each user's own": ("rates->user[i].full_ns && rates->user[i].uid == uid", "rates->user[i].full_ns"),
    "who is forgotten": ("rates->user[i].full_ns < rates->user[at].full_ns", "0"),
}
"""Safety rules of the policy, and how to break each."""


def test_policy_keeps_its_promise(tmp_path: Path) -> None:
    program = tmp_path / "policy_test"
    run("gcc", *FLAGS, *SANITIZED, "-o", program, MODULE / "tests" / "policy_test.c")
    assert "random sequences kept the promise" in run(program)


@pytest.mark.parametrize("rule", BREAKAGES)
def test_a_broken_rule_is_noticed(rule: str, tmp_path: Path) -> None:
    old, new = BREAKAGES[rule]
    found = 0
    for header in ("mg_policy.h", "mg_rate.h"):
        source = (MODULE / header).read_text()
        found += source.count(old)
        (tmp_path / header).write_text(source.replace(old, new))
    assert found == 1
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "policy_test.c").write_text((MODULE / "tests" / "policy_test.c").read_text())
    program = tmp_path / "policy_test"
    run("gcc", "-O1", "-o", program, tmp_path / "tests" / "policy_test.c")
    done = subprocess.run([program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode
    assert "Assertion" in done.stderr
