"""A user who takes over what root has started as him: it is a program of his from then on, but in no better place than his
job, and it goes with the job's fault domain.

The user's means are the kernel's own: he traces the control daemon, its server or a conversation, and lets it execute
another program. With cgroups, and on a node without.
"""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resilience.adapters.linux.cgroups import of_this_host
from tests.conformance.domain_site import USER, Site, color
from tests.gpusim.mps_harness import wait_for
from tests.unit.domain_world import ROOT
from tests.unit.test_enter import HIDES

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd's prolog is"),
    pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the attack is written for x86-64"),
]
HUNTS = """
import os, subprocess, sys
while True:
    for entry in os.listdir("/proc"):
        try:
            name = open(f"/proc/{entry}/comm").read() if entry.isdigit() else ""
            mine = name.startswith("nvidia-cuda-mps") and os.stat(f"/proc/{entry}").st_uid == os.getuid()
        except OSError:
            continue
        if mine and subprocess.run([sys.argv[1], entry, sys.argv[2]], stderr=subprocess.DEVNULL).returncode == 0:
            open(sys.argv[3], "a").write(entry + "\\n")
"""


class Attacker:
    """What the user has: a tracer, and a program that hides."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.chmod(0o1777)
        self.tracer = home / "replace"
        subprocess.run(["gcc", "-O1", "-o", self.tracer, ROOT / "tests/programs/replace.c"], check=True)
        self.program = home / "kworker"
        self.program.write_text(
            f"#!/usr/bin/python3 -IS\nopen('{home}/became', 'w')\nimport sys; sys.argv.append('')\n{HIDES}"
        )
        self.program.chmod(0o755)

    def take_over(self, pid: int) -> list[int]:
        """The user's processes when the program runs in the place of one of them."""
        before = set(of_user())
        done = self._run(str(self.tracer), str(pid), str(self.program))
        if "not permitted" in done.stderr:
            pytest.skip(f"this kernel lets no user trace it (Yama): {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        wait_for(
            "the program to have hidden", lambda: (self.home / "became").exists() and len(set(of_user()) - before) == 4
        )
        return [pid, *set(of_user()) - before]

    def hunt(self) -> "subprocess.Popen[str]":
        """Whatever of NVIDIA's begins to run as the user is taken over at once."""
        words = [str(self.tracer), str(self.program), str(self.home / "hit")]
        return subprocess.Popen([sys.executable, "-c", HUNTS, *words], text=True, **self._as_user())

    def _run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(argv, check=False, capture_output=True, text=True, **self._as_user())

    @staticmethod
    def _as_user() -> dict[str, Any]:
        return {"user": USER, "group": USER, "extra_groups": [], "start_new_session": True, "cwd": "/"}


def of_user() -> list[int]:
    """The user's processes that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines = (entry / "status").read_text().splitlines()
            except OSError:
                continue
            fields = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
            if fields["Uid"][0] == str(USER) and fields["State"][0] not in ("Z", "X"):
                found.append(int(entry.name))
    return found


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    home = Path(tempfile.mkdtemp(prefix="mpsr-attacker-", dir="/tmp"))
    yield Attacker(home)
    for pid in of_user():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(home)


@pytest.fixture(params=["cgroup", "reaper"])
def place(request: pytest.FixtureRequest, here: Site) -> Site:
    if request.param == "reaper":
        here.change(replace(here.node.settings, paths=replace(here.node.settings.paths, cgroup="")))
    elif of_this_host() is None:
        pytest.skip("no cgroups on this host")
    return here


@pytest.mark.parametrize("which", ["daemon", "server"])
def test_what_a_daemon_has_become_goes_with_the_job(
    place: Site, attacker: Attacker, which: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place.prolog(12)
    mps = place.mps()
    daemon = mps.daemon(color("a"))
    assert daemon is not None
    pids = attacker.take_over(daemon.pid if which == "daemon" else mps.servers(color("a"))[0])
    assert [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in pids] == ["0\n"] * len(pids)
    assert place.epilog(12) == []
    assert of_user() == []
    place.nothing_left()
    assert f"mps u{USER}/g0/a: what has become of its daemon is ended: process " in capfd.readouterr().err
    told = {str(closed["color"]): closed["ended"] for closed in place.node.journal.of("domain.closed")}
    assert "(kworker)" in str(told["a"])
    assert told["b"] is None


def test_a_conversation_that_is_taken_over_goes_with_the_job(place: Site, attacker: Attacker) -> None:
    place.change(
        replace(place.node.settings, mps=replace(place.node.settings.mps, start_timeout=2.0, quit_timeout=2.0))
    )
    hunter = attacker.hunt()
    try:
        place.prolog(12)
        wait_for("something to be taken over", (attacker.home / "hit").exists)
    finally:
        hunter.kill()
        hunter.wait()
    place.epilog(12)
    assert of_user() == []
    assert place.epilog(12) == []
    place.nothing_left()


def test_another_domain_of_the_same_user_is_let_alone(place: Site, attacker: Attacker) -> None:
    place.prolog(12, "mps=on;domain=job")
    place.prolog(13, "mps=on;domain=job")
    other = set(place.mps().servers(color("a", key="j13")))
    daemon = place.mps().daemon(color("a", key="j12"))
    assert daemon is not None
    attacker.take_over(daemon.pid)
    assert place.epilog(12) == []
    assert set(place.mps().servers(color("a", key="j13"))) == other
    assert place.epilog(13) == []
    assert of_user() == []


def test_a_server_that_is_repaired_leaves_no_old_program_behind(place: Site, attacker: Attacker) -> None:
    """The domain's next prolog finds no daemon: what has become of it ends then, not with the last job."""
    place.prolog(12)
    daemon = place.mps().daemon(color("a"))
    assert daemon is not None
    pids = attacker.take_over(daemon.pid)
    place.prolog(13)
    assert set(pids) & set(of_user()) == set()
    assert place.mps().servers(color("a")) != ()
    assert place.epilog(12) == place.epilog(13) == []


def test_what_cannot_be_ended_is_told(here: Site, attacker: Attacker) -> None:
    """A frozen process dies when it is thawed and not before, as one does that hangs in a driver's call."""
    hierarchies, freezer = of_this_host(), Path("/sys/fs/cgroup/freezer")
    if hierarchies is None or not hierarchies.unified or not os.access(freezer, os.W_OK):
        pytest.skip("needs v1's freezer beside cgroup v2")
    ice = freezer / here.base.name
    here.prolog(12)
    daemon = here.mps().daemon(color("a"))
    assert daemon is not None
    attacker.take_over(daemon.pid)
    ice.mkdir()
    try:
        (ice / "cgroup.procs").write_text(str(daemon.pid))
        (ice / "freezer.state").write_text("FROZEN")
        wait_for("the process to be frozen", lambda: (ice / "freezer.state").read_text() == "FROZEN\n")
        (told,) = here.epilog(12)
        assert told == f"process {daemon.pid} (kworker) of {here.pipe()}"
        assert of_user() == [daemon.pid]
        (ice / "freezer.state").write_text("THAWED")
        wait_for("it to be gone", lambda: not of_user())
    finally:
        (ice / "freezer.state").write_text("THAWED")
        wait_for("the freezer to be empty", lambda: not (ice / "cgroup.procs").read_text())
        ice.rmdir()
    assert here.epilog(12) == []
    here.nothing_left()
