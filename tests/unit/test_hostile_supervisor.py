"""Whatever a peer says to the agent, in words or in bytes: the agent goes on, and honest tasks do not notice."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.adapters.gpu.nvml import NvmlEvents, NvmlGpus
from resilience.agent import messages
from resilience.agent.reception import HEARD
from resilience.model.errors import GpuError, WireError
from resilience.model.ids import JobId, StepId, TaskId, TaskRef
from resilience.parse.packet import pack
from tests.unit.agent_kit import BOUND, Site, Supervisor, until
from tests.unit.machine_kit import lease

VERBS = "hello started session ready fault exit stepped rung_failed spilled keeper place verdict hold release x".split()
KEYS = (
    "v job step task local gpu pid starttime options mpi resumed retries_used active_pid color session role cuda call "
    "seq text status told incident ms at rung reason state"
).split()
values = st.one_of(
    st.sampled_from(["", "0", "1", "-1", "a", "b", "q1", "q0", "q999999", "active", "standby", "nan", "inf", "1e400"]),
    st.sampled_from(
        ["9" * 15, "9" * 16, "-" + "9" * 15, "٣", "0x1", "1 ", "mps=on", "mps=on;domain=shared", "/etc/passwd"]
    ),
    st.integers().map(str),
    st.text(max_size=30),
)


def _packed(verb: str, words: dict[str, str]) -> bytes:
    try:
        return pack(verb, **words)
    except WireError:  # a text that nobody can pack
        return b"x"


packets = st.one_of(
    st.builds(_packed, st.sampled_from(VERBS), st.dictionaries(st.sampled_from(KEYS), values, max_size=8)),
    st.binary(min_size=1, max_size=60),
)  # fmt: skip


@settings(max_examples=400)
@given(st.sampled_from(VERBS), st.dictionaries(st.sampled_from(KEYS), values, max_size=12))
def test_any_words_are_a_message_or_a_wire_error(verb: str, words: dict[str, str]) -> None:
    with suppress(WireError):
        messages.hello(verb, words)
    with suppress(WireError):
        messages.message(TaskRef(job=JobId(1), step=StepId(0), task=TaskId(0)), verb, words)


@pytest.mark.parametrize("key", ["job", "step", "task", "gpu", "retries_used", "retried_ms", "active_pid"])
def test_no_number_of_a_hello_is_below_zero(key: str) -> None:
    """Fewer retries than none would be retries without end."""
    words = {"v": "1", "job": "1", "step": "0", "task": "0", "gpu": "0"} | {key: "-1"}
    with pytest.raises(WireError, match=f"{key} is below 0: -1"):
        messages.hello("hello", words)


@pytest.mark.parametrize("verb", ["started", "session", "ready", "fault", "exit", "end"])
def test_no_process_has_a_number_below_zero(verb: str) -> None:
    """To kill(2), -1 is every process of a user, and others are groups."""
    words = {"pid": "-1", "color": "a", "status": "0", "n": "1", "pids": "7,-1"}
    with pytest.raises(WireError, match="is below 0: -1"):
        messages.message(TaskRef(job=JobId(1), step=StepId(0), task=TaskId(0)), verb, words)


def test_no_packets_stop_the_agent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One agent, many peers of one job, some before and some after their hello."""
    with Site(tmp_path) as site:
        site.leases.leases[JobId(1)] = lease(1)

        @settings(max_examples=150, database=None)
        @given(st.booleans(), st.integers(0, 5), st.lists(packets, min_size=1, max_size=10))
        def talk(greet: bool, task: int, said: list[bytes]) -> None:
            if greet:
                peer = Supervisor(site.socket, 1, task)
                connection = peer.socket
            else:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                connection.settimeout(BOUND)
                connection.connect(site.socket)
            with connection, suppress(BrokenPipeError, ConnectionResetError):
                for packet in said:
                    connection.send(packet)

        talk()
        honest = site.task(lease(2)).run()
        honest.say("exit", role="active", pid=honest.pid, status=0)
        honest.close()
        again = site.task(lease(3))
        assert again.hear("place")["color"] in ("a", "b")
    assert "unexpected error" not in capfd.readouterr().err


def test_a_jobs_long_paths_and_words_cost_nobody_elses_news(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A path for the output file, and a reason for a failure, that fit no packet once they are percent-encoded."""
    with Site(tmp_path) as site:
        site.slurm.workdir = "/home/" + "é" * 1500
        one = site.task(lease(1)).run()
        two = site.task(lease(2)).run()
        two.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", f"Client {{PID: {two.pid}, Context: 1}} encountered a fatal GPU error.")
        verdict = one.hear("verdict")
        while verdict["action"] not in ("fail", "requeue"):
            one.say("rung_failed", incident=verdict["incident"], rung="x", reason="é" * 190)
            verdict = one.hear("verdict")
        assert verdict["reason"].count("é") > 190
        assert two.hear("verdict")["action"] == "fail"
    said = capfd.readouterr().err
    assert "longer than" not in said
    assert "unexpected error" not in said


def test_a_message_that_is_too_long_is_turned_away(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        one = site.task(lease(1)).run()
        one.say("keeper", state="x" * HEARD)
        assert "longer than 4096 bytes" in one.hear("refuse")["reason"]


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia/version"), reason="NVML works here")
def test_without_nvmls_library_the_agent_runs_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """This machine has none in its search path, or its driver is not loaded: both are GpuErrors that say so."""
    with pytest.raises(GpuError, match="nvmlInit") as caught:
        NvmlGpus().all()
    assert caught.value.hint
    with pytest.raises(GpuError):
        NvmlEvents()
    with Site(tmp_path, gpus=NvmlGpus()) as site:
        assert site.task(lease(1)).hear("place")["color"] == "a"
    assert "nvmlInit" in capfd.readouterr().err
