"""The command itself: what it lists, how it refuses, and that it imports no more than it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from resilience.cli.commands import COMMANDS, WITHOUT_ARGUMENTS
from resilience.cli.main import main
from resilience.cli.parser import whole

ROOT = Path(__file__).parents[2]


def mpsr(*words: str, stdin: int | None = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resilience.cli.main", *words]
    return subprocess.run(command, cwd=ROOT, stdin=stdin, capture_output=True, text=True, check=False, timeout=30)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_ARGUMENTS))
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: mpsr {name}" in capsys.readouterr().out


def test_an_unknown_command_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stauts"]) == 2
    assert capsys.readouterr().err == "mpsr: command: unknown: stauts\n  did you mean mpsr status?\n"
    assert main([]) == 2


def test_a_bad_argument_is_one_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["log", "--job", "x"])
    assert ended.value.code == 2
    err = capsys.readouterr().err.splitlines()
    assert err[0].startswith("mpsr: log: argument -j/--job: job: is not a job's number: 'x'; such as 4711, 4711_3")
    assert err[1:] == ["  try: mpsr log --help"]


def test_a_bad_configuration_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mpsr.yaml").write_text("recovery: 5\n")
    assert main(["status", "--config", str(tmp_path / "mpsr.yaml")]) == 2
    assert capsys.readouterr().err.startswith(f"mpsr: {tmp_path}/mpsr.yaml: recovery: is not a mapping")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text('{"event": "agent.started", "wall": 1.0}\n' * 20000)
    command = (
        f'"{sys.executable}" -m resilience.cli.main log --journal {journal} | head -n 1; echo "${{PIPESTATUS[0]}}"'
    )
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0", "")


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return set(done.stdout.split())


READERS = {"check", "explain", "drill", "guard", "metrics", "replay", "report", "top"}
"""Commands that read what another one reads, or run its job."""


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_ARGUMENTS - READERS))
def test_a_command_imports_no_other(name: str) -> None:
    loaded = loaded_by(f"from resilience.cli.parser import of_command; of_command('{name}')")
    assert {f"resilience.cli.{other}" for other in COMMANDS} & loaded == {f"resilience.cli.{name}"}


def test_the_whole_parser_knows_what_the_list_names() -> None:
    shown = whole().format_help()
    assert all(f"\n    {name} " in shown for name in COMMANDS)


def test_an_agent_without_metrics_carries_nothing_for_them() -> None:
    assert not loaded_by("import resilience.cli.agent") & {"prometheus_client", "http", "ssl"}


def test_prolog_and_epilog_import_little() -> None:
    loaded = loaded_by("import resilience.hooks.run_one")
    assert not loaded & {"argparse", "jinja2", "asyncio", "numpy", "resilience.config.render", "resilience.agent"}


def test_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("mpsr ")
