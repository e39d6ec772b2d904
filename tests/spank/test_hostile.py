"""The supervisor under fire from both sides, built with ASan and UBSan: hostile agents, hostile programs.

Whatever it is told it either goes on or ends as the protocol says; it never crashes, hangs or leaves processes.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.parse import packet
from tests.spank.node import BOUND, ROOT, ScriptedAgent, Supervised, launch, lease, write_lease
from tests.spank.slurm import wait_for

VERBS = "place verdict standby hold release log refuse promote sing".split()
KEYS = "color pipe standby standby_pipe incident action part reason path line ms grace_ms restore_ms requeue_ms spill_ms".split()
values = st.one_of(
    st.sampled_from(
        ["", "a", "b", "q1", "/pipes/b", "/" * 300, "x" * 600, "0", "1", "50", "-1", "9" * 30, "%s%n", "é"]
    ),
    st.sampled_from("none promote restore relaunch quarantine requeue fail".split()),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)
from_agent = st.one_of(
    st.builds(lambda verb, pairs: packet.pack(verb, **pairs), st.sampled_from(VERBS),
              st.dictionaries(st.sampled_from(KEYS), values, max_size=6)),
    st.binary(min_size=1, max_size=50),
)  # fmt: skip
PROGRAM_VERBS = "session ready fault stepped done promote hello".split()
PROGRAM_KEYS = "v role cuda call seq text at".split()
from_program = st.one_of(
    st.builds(lambda verb, pairs: packet.pack(verb, **pairs), st.sampled_from(PROGRAM_VERBS),
              st.dictionaries(st.sampled_from(PROGRAM_KEYS), values | st.just("1"), max_size=5)),
    st.binary(min_size=1, max_size=50),
)  # fmt: skip
SAYS = """
import os, socket, sys
supervisor = socket.socket(fileno=int(os.environ["MPSR_FD"]))
if os.environ.get("MPSR_ROLE") == "active":
    for packet in sys.argv[1:]:
        supervisor.send(bytes.fromhex(packet))
sys.stdin.read()
"""
SETTINGS = settings(max_examples=150, database=None)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sanitized")
    subprocess.run(
        ["make", "-s", "-C", "spank_plugin", f"OUT={out}", "SANITIZE=1", "CFLAGS=-O1 -g", str(out / "mpsr-launch")],
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    return out / "mpsr-launch"


class FakedPlace:
    """A lease whose keeper can never live, an agent's socket, and supervisors one after the other."""

    def __init__(self, run: Path, launcher: Path) -> None:
        self.launcher = launcher
        self.lease = lease(run, python="/bin/false")
        write_lease(self.lease)
        self.agent = ScriptedAgent.at(run / "n0/agent.sock")
        self.directory = run / "n0"

    def start(self, *command: str) -> Supervised:
        return launch(self.lease, *command, cwd=self.directory, launcher=self.launcher)


@pytest.fixture
def place(sanitized: Path, tmp_path: Path) -> Iterator[FakedPlace]:
    it = FakedPlace(tmp_path, sanitized)
    yield it
    it.agent.close()


def ended(place: FakedPlace, supervised: Supervised) -> None:
    """End it as Slurm would if it has not ended: SIGTERM to all, its program's input closes."""
    with suppress(ProcessLookupError):
        supervised.process.send_signal(signal.SIGTERM)
    status, _, errors = supervised.end(seconds=20)
    assert status != -signal.SIGKILL, f"it hung: {errors[-2000:]}"
    assert "Sanitizer" not in errors, errors[-4000:]
    assert "runtime error" not in errors, errors[-4000:]
    place.agent.listener.setblocking(False)
    with suppress(BlockingIOError):  # it may have come back when its agent hung up
        while True:
            place.agent.listener.accept()[0].close()
    place.agent.listener.settimeout(BOUND)


def test_no_agent_breaks_the_supervisor(place: FakedPlace) -> None:
    @SETTINGS
    @given(st.booleans(), st.lists(from_agent, min_size=1, max_size=12))
    def talk(placed: bool, said: list[bytes]) -> None:
        supervised = place.start("cat")
        connection = place.agent.accept()
        if placed:
            connection.place(standby="b", standby_pipe="/pipes/b")
        with suppress(BrokenPipeError, ConnectionResetError):
            for packet in said:
                connection.socket.send(packet)
        connection.close()
        ended(place, supervised)

    talk()


def test_no_program_breaks_the_supervisor(place: FakedPlace) -> None:
    @SETTINGS
    @given(st.lists(from_program, min_size=1, max_size=12), st.lists(from_agent, max_size=4))
    def talk(said: list[bytes], answers: list[bytes]) -> None:
        supervised = place.start(sys.executable, "-c", SAYS, *(packet.hex() for packet in said))
        connection = place.agent.accept()
        connection.place(standby="b", standby_pipe="/pipes/b")
        with suppress(BrokenPipeError, ConnectionResetError):
            for packet in answers:
                connection.socket.send(packet)
        connection.expect("started")
        connection.close()
        ended(place, supervised)

    talk()


def test_nothing_is_left_of_all_that(place: FakedPlace) -> None:
    supervised = place.start(sys.executable, "-c", SAYS, packet.pack("session", v="1", role="active").hex())
    connection = place.agent.accept()
    connection.place(standby="b", standby_pipe="/pipes/b")
    pids = [int(connection.expect("started", role=role)["pid"]) for role in ("active", "standby")]
    supervised.process.send_signal(signal.SIGKILL)
    supervised.end()
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}/environ") and _alive(pid) for pid in pids), "their end")


def _alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
