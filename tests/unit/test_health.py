"""`mpsr check --health`: one line, and the exit status that Nagios and a HealthCheckProgram go by."""

from dataclasses import replace
from pathlib import Path

import pytest

from resilience.check.finding import Finding, fine, warning, wrong
from resilience.cli import status
from resilience.cli.main import main
from resilience.report.health import Code, judge
from tests.unit.test_cli_status import GOOD, UP


@pytest.mark.parametrize(
    ("seen", "findings", "code", "says"),
    [
        (GOOD, [fine("x", "good")], Code.OK, "MPSR OK - the agent answers | servers=1 clients=2 leases=1"),
        (replace(GOOD, agent=False), [], Code.CRITICAL, "the agent does not answer, and jobs have leases: 1 |"),
        (replace(GOOD, agent=False, leases=()), [], Code.WARNING, "MPSR WARNING - the agent does not answer |"),
        (replace(GOOD, broken=("12.lease: bad",)), [], Code.CRITICAL, "lease that cannot be read: 12.lease: bad |"),
        (replace(GOOD, servers=(replace(UP, state="FAULT"),)), [], Code.WARNING, "server u1001/g0/a is FAULT |"),
        (replace(GOOD, servers=(replace(UP, state="ABSENT", needed=False),)), [], Code.OK, "MPSR OK"),
        (GOOD, [warning("NVML", "a|b")], Code.WARNING, "MPSR WARNING - NVML: a/b | "),
        (
            GOOD,
            [warning("a", "b"), wrong("paths.launcher", "is not there")],
            Code.CRITICAL,
            "MPSR CRITICAL - paths.launcher",
        ),
        (GOOD, [warning(str(n), "x") for n in range(5)], Code.WARNING, "2: x; and 2 more: mpsr check |"),
    ],
)
def test_the_worst_gives_the_status(seen: status.Status, findings: list[Finding], code: Code, says: str) -> None:
    got, line = judge(status.shown(seen), findings)
    assert (got, "\n" in line) == (code, False)
    assert says in line


def test_the_command_ends_with_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mpsr.yaml"
    config.write_text("recovery: {mod: act}\n")
    assert main(["check", "--health", "--config", str(config)]) == 2
    assert capsys.readouterr().out.startswith("MPSR CRITICAL - ")
    config.write_text("paths: {run: /run/nowhere, launcher: /nonexistent/mpsr-launch}\n")
    assert main(["check", "--health", "--config", str(config)]) == 2
    out = capsys.readouterr().out
    assert out.startswith("MPSR CRITICAL - paths.launcher: is not there: /nonexistent/mpsr-launch; ")
    assert out.count("\n") == 1
    assert main(["check", "--health", "--nodes", "n1"]) == 2
    assert "--health: is of this node" in capsys.readouterr().err
