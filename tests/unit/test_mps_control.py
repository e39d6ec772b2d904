"""The control daemon's words, as five real drivers said them, and whatever else may come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.adapters.mps.mps_talk import daemon_environment, search_path
from resilience.parse import mps_control as parse
from resilience.parse.mps_control import Talk


@pytest.mark.parametrize(
    ("stdout", "stderr", "talk", "lines"),
    [
        ("100.0\n", "", Talk.ANSWERED, ()),
        ("15892\n100.0\n", "", Talk.ANSWERED, ("15892",)),
        ("50.0", "", Talk.ANSWERED, ()),
        (
            "Server 1 not found\nServer 1 not found!\n1\n100.0\n",
            "",
            Talk.ANSWERED,
            (*["Server 1 not found"], "Server 1 not found!", "1"),
        ),
        ('Unknown command "get_server_status"\n100.0\n', "", Talk.ANSWERED, ('Unknown command "get_server_status"',)),
        # another client has the daemon's ear: status 0 and nothing, or status 1 and these words
        ("", "", Talk.BUSY, ()),
        ("", "Cannot send command to MPS control daemon process\n", Talk.BUSY, ()),
        # cut off before the sentinel: 0 is terminate_client's answer, never the sentinel's
        ("0\n", "", Talk.BUSY, ()),
        ("15892\n", "", Talk.BUSY, ()),
        ("15892\nServer 15892 is <busy>\n100.0\n", "", Talk.BUSY, ()),
        ("", "Cannot find MPS control daemon process\n", Talk.NO_DAEMON, ()),
    ],
)
def test_answers_of_real_daemons(stdout: str, stderr: str, talk: Talk, lines: tuple[str, ...]) -> None:
    assert parse.answer(stdout, stderr) == (talk, lines)


@given(st.text(), st.text())
def test_any_output_is_an_answer_of_some_kind(stdout: str, stderr: str) -> None:
    talk, lines = parse.answer(stdout, stderr)
    assert talk is Talk.ANSWERED or lines == ()
    assert all(0 < pid < 10**10 for pid in parse.pids(lines))
    assert parse.status(lines) in (None, "ABSENT", *parse.STATES)
    assert len(parse.complaint(lines)) <= 200


@given(st.text())
def test_any_log_is_read(text: str) -> None:
    assert parse.state_in_logs(text, text, 7) in parse.STATES
    assert parse.deaths(text) >= 0
    assert parse.quits(text) >= 0
    assert all(char.isprintable() for char in parse.reason(text))


@pytest.mark.parametrize("command", ["quit\nget_server_list", "x" * 2000, "", "ps;id", 'set "', "é"])
def test_a_command_that_no_daemon_must_be_sent_is_refused(command: str) -> None:
    with pytest.raises(ValueError, match="not a control command"):
        parse.script(command)


def test_a_script_ends_with_the_sentinel() -> None:
    assert parse.script("start_server -uid 0", "get_server_list") == (
        b"start_server -uid 0\nget_server_list\nget_default_active_thread_percentage\n"
    )


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        (("ACTIVE",), "ACTIVE"),
        (("15892", "FAULT"), "FAULT"),
        (("Server 1 not found",), "ABSENT"),
        (("A server PID is required",), "ABSENT"),
        (('Unknown command "get_server_status"',), None),
        ((), "ABSENT"),
    ],
)
def test_server_status(lines: tuple[str, ...], state: str | None) -> None:
    assert parse.status(lines) == state


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("15892",), ""),
        (("15892", "ACTIVE"), ""),
        (("Server 12 not found",), ""),
        (('Unknown command "get_server_status"',), ""),
        (("A user id (UID) is required to start a new server",), "A user id (UID) is required to start a new server"),
        (("bad\x1b[31m",), "bad?[31m"),
    ],
)
def test_complaints(lines: tuple[str, ...], words: str) -> None:
    assert parse.complaint(lines) == words


@pytest.mark.parametrize(
    ("lines", "done"), [(("0",), True), (("1",), False), (("Server 1 not found", "1"), False), ((), False)]
)
def test_terminate_client(lines: tuple[str, ...], done: bool) -> None:
    assert parse.terminated(lines) is done


def test_state_by_the_logs_of_535() -> None:
    stamp = "[2026-11-20 17:29:32.496 Other 15892]"
    log = [f"{stamp} Startup"]
    assert parse.state_in_logs("", "\n".join(log), 15892) == "INITIALIZING"
    log.append(f"{stamp} Server has started")
    assert parse.state_in_logs("", "\n".join(log), 15892) == "ACTIVE"
    log.append(f"{stamp} Volta MPS: Server is handling a fatal GPU error.")
    assert parse.state_in_logs("", "\n".join(log), 15892) == "FAULT"
    assert parse.state_in_logs("", "\n".join(log), 1) == "INITIALIZING"
    log.append(f"{stamp} Volta MPS: Creating server context on device 0 (NVIDIA L40)")
    assert parse.state_in_logs("", "\n".join(log), 15892) == "ACTIVE"
    assert parse.state_in_logs("[2026-11-20 17:29:32.496 Control   886] NEW SERVER 15892: Ready", "", 15892) == "ACTIVE"


def test_control_log_lines() -> None:
    log = (
        "[2026-11-20 17:29:32.534 Control 15886] Server encountered a fatal exception. Shutting down\n"
        "[2026-11-20 17:29:32.534 Control 15886] Server 15892 exited with status 1\n"
        "[2026-11-20 17:29:32.552 Control 15886] Cmd:quit -t 1\n"
        "[2026-11-20 17:29:32.552 Control 15886] Exit with status 1\n"
    )
    assert (parse.deaths(log), parse.quits(log), parse.quit_status(log)) == (1, 1, 1)
    assert parse.quit_status("") is None
    assert parse.ready("[2026-11-20 17:29:32.534 Control 15886] NEW SERVER 15892: Ready\n") == (15892,)
    assert parse.ready(log) == ()
    failed = "[2026-11-20 17:29:32.496 Other 15892] Failed to start : no CUDA-capable device is detected"
    assert parse.reason(f"{failed}\n[2026-11-20 17:29:32.496 Other 15892] Startup\n") == (
        "Failed to start : no CUDA-capable device is detected"
    )


def test_silent_exit_statuses_of_580_get_a_hint() -> None:
    assert "no GPU" in parse.start_hint(100, "")
    assert "libcuda" in parse.start_hint(244, "")
    assert "550" in parse.start_hint(1, "Cannot find MPS control daemon process")
    assert parse.start_hint(3, "") == ""
    help_of_580 = "Unrecognized option \0\nCUDA MPS Control for Linux/Unix/QNX.\n"
    assert parse.unknown_option(help_of_580)
    assert not parse.unknown_option("")
    assert "multi-user" in parse.start_hint(0, help_of_580)


def test_a_daemon_inherits_nothing_of_the_job() -> None:
    given = {
        "PATH": "/p",
        "LD_LIBRARY_PATH": "/l",
        "SLURM_JOB_ID": "1",
        "SLURMD_NODENAME": "n0",
        "SPANK_MPSR": "x",
        "MPSR_CONFIG": "x",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
        "CUDA_VISIBLE_DEVICES": "0",
        "HOME": "/root",
        "BASH_FUNC_x%%": "() { :; }",
        "SITE": "kept",
    }
    made = daemon_environment(given, "nvidia-cuda-mps-control")
    assert made | {"PATH": ""} == {"PATH": "", "LD_LIBRARY_PATH": "/l", "SITE": "kept"}


def test_a_daemon_finds_its_server() -> None:
    """The real one looks on PATH alone, and Debian has the server in /usr/sbin."""
    assert search_path({"PATH": "/p:/usr/bin"}, "nvidia-cuda-mps-control").startswith("/p:/usr/bin:")
    assert "/usr/sbin" in search_path({"PATH": "/usr/bin:/bin"}, "nvidia-cuda-mps-control").split(":")
    assert search_path({}, "/opt/nv/bin/nvidia-cuda-mps-control").startswith("/opt/nv/bin:")
