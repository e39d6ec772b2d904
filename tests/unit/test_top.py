"""`mpsr top`: what is there is on the screen, within 80 columns and in ASCII; what cannot be seen is named."""

import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from resilience.cli.main import main
from resilience.contract import exit_code
from resilience.report.overview import FaultLine
from resilience.report.screen import ClientRow, GpuRow, ServerOnScreen, View, draw

UUID = "GPU-1d5f7a52-9f0a-4a3e-8c37-2f3f0a6a7f11"
CLIENT = ClientRow(
    pid=4194303, server="u4294967294/g15/a", job=4294967290, user="someone.with.a.long.name", threads=100, limit=81920,
    used=140 << 30, isolation="domains",
)  # fmt: skip
VIEW = View(
    node="gpu01",
    now=1790000000.0,
    agent=True,
    isolation="domains",
    gpus=(GpuRow(minor=0, uuid=UUID, name="NVIDIA H200 with a very long name of a board", used=5 << 20, total=141 << 30),),
    servers=(
        ServerOnScreen(name="u1001/g0/a", gpu=0, state="ACTIVE", good=True, clients=2, note="new tasks join it"),
        ServerOnScreen(name="u1001/g0/b", gpu=0, state="FAULT", good=False, clients=0, note="no lease names it"),
    ),
    clients=(CLIENT, replace(CLIENT, pid=None, job=None, user="", threads=None, limit=None, used=None)),
    faults=(
        FaultLine(
            incident="6a-1", wall=1790000000.0, kind="mmu", gpu=UUID, words="illegal address, Xid 31",
            by="job 4294967290 step 4294967290 task 12", sure="certain", victims=2, ended="1 failed, 2 recovered",
        ),
    ),
    open=1,
    notes=("servers: only root sees them",),
)  # fmt: skip


def screen(view: View, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(draw(view), no_wrap=True, crop=True)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_wider_than_the_terminal_and_all_of_it_is_ascii(width: int) -> None:
    lines = screen(VIEW, width)
    assert max(map(len, lines)) <= width
    assert "".join(lines).isascii()
    assert len(lines) == len(screen(VIEW, 200)), "a line is wrapped"


def test_what_is_there_is_shown() -> None:
    lines = screen(VIEW, 200)
    text = "\n".join(lines)
    assert lines[0] == "gpu01  2026-09-21 14:13:20 UTC  agent answers  isolation of new jobs: domains"
    assert lines[1] == "servers: only root sees them"
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["u1001/g0/b"] == ["0", "FAULT", "0", "no", "lease", "names", "it"]
    user, server = "someone.with.a.long.name", "u4294967294/g15/a"
    assert rows["4194303"] == ["4294967290", user, server, "100", "%", "81920", "MiB", "143360", "MiB", "domains"]
    assert "5 / 144384 MiB" in text
    assert "1 fault being dealt with" in lines
    assert "by someone" not in text
    assert rows["09-21"][1:4] == ["illegal", "address,", "Xid"]


def test_the_columns_that_an_admin_needs_are_whole_at_80() -> None:
    usual = replace(CLIENT, pid=31337, job=471199, user="alice", server="u1001/g0/a")
    lines = screen(replace(VIEW, clients=(usual,)))
    assert any(line.split()[:3] == ["u1001/g0/b", "0", "FAULT"] for line in lines)
    assert any("illegal address, Xid 31" in line for line in lines)
    (row,) = (line for line in lines if "31337" in line)
    assert row.split() == [
        "31337",
        "471199",
        "alice",
        "u1001/g0/a",
        "100",
        "%",
        "81920",
        "MiB",
        "143360",
        "MiB",
        "domains",
    ]


def test_one_look_at_a_node_without_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mpsr.yaml"
    config.write_text(f"paths: {{run: /run/nowhere, log: {tmp_path}}}")
    assert main(["top", "--once", "--node", "n0", "--config", str(config)]) == exit_code("ok")
    out = capsys.readouterr().out
    assert out.startswith("n0  ")
    assert "agent does not answer" in out
    assert "0 faults being dealt with" in out


def test_it_looks_again_until_ctrl_c_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    config = tmp_path / "mpsr.yaml"
    config.write_text(f"paths: {{run: /run/nowhere, log: {tmp_path}}}")
    command = [sys.executable, "-m", "resilience.cli.main", "top", "--interval", "0.5", "--node", "n0"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = os.environ | {"TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([*command, "--config", str(config)], stdin=theirs, stdout=theirs, env=environ) as top:
        os.close(theirs)
        try:
            seen = b""
            while seen.count(b"does not answer") < 2:
                seen += read(ours)
            top.send_signal(signal.SIGINT)
            while piece := read(ours):
                seen += piece
            assert top.wait(30) == exit_code("ok")
        finally:
            top.kill()
    os.close(ours)
    assert seen.index(b"\x1b[?1049h") < seen.index(b"does not answer") < seen.rindex(b"\x1b[?1049l")


def read(terminal: int) -> bytes:
    """What comes next on a terminal; nothing when its other end has gone."""
    assert select.select([terminal], [], [], 60)[0], "nothing came"
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_a_look_every_moment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--interval", "0.1"]) == exit_code("usage")
    assert "--interval: is less than 0.5 s: 0.1" in capsys.readouterr().err
