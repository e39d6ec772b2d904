"""What record.py runs: one function a scenario, each in a private folder, without a GPU.

Every scenario is something that an administrator, a prolog or a crash does to a control daemon. They run unchanged
against real daemons of all branches and against the simulated one.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

from tests.gpusim.mps_harness import LIMIT, wait_for
from tests.gpusim.record import OTHER_UID, RecordedPlace

COMMANDS = """get_server_list
get_server_status
get_server_status 1
get_server_status abc
get_client_list
get_client_list 1
get_device_client_list
get_device_client_list 1
ps
ps -p 1
shutdown_server
shutdown_server 1
shutdown_server 1 -f
start_server
start_server -uid
start_server -uid abc
terminate_client
terminate_client 1
terminate_client 1 2
get_default_active_thread_percentage
set_default_active_thread_percentage 50
set_default_active_thread_percentage 0
set_default_active_thread_percentage 101
set_default_active_thread_percentage
set_default_active_thread_percentage abc
set_default_active_thread_percentage 33.33
get_active_thread_percentage
get_active_thread_percentage 1
set_active_thread_percentage 1
set_active_thread_percentage 1 50
get_default_device_pinned_mem_limit
get_default_device_pinned_mem_limit 0 before
set_default_device_pinned_mem_limit 0 2G
get_default_device_pinned_mem_limit 0
set_default_device_pinned_mem_limit 0 1536M
get_default_device_pinned_mem_limit 0 again
set_default_device_pinned_mem_limit 0 512M
get_default_device_pinned_mem_limit 0 small
set_default_device_pinned_mem_limit 0 xyz
set_default_device_pinned_mem_limit 0 100
set_default_device_pinned_mem_limit 99 2G
set_default_device_pinned_mem_limit 0
set_default_device_pinned_mem_limit
get_device_pinned_mem_limit 1 0
set_device_pinned_mem_limit 1 0 2G
get_default_client_priority
set_default_client_priority 1
get_default_client_priority again
set_default_client_priority 5
set_default_client_priority
get_default_client_priority at last
device_query
device_query --csv
device_query 1
sm_partition
sm_partition add GPU-0 1
lspart
help
?
foo bar
GET_SERVER_LIST
  get_default_client_priority
get_server_list and more words""".splitlines()


def options(place: RecordedPlace) -> None:
    """Command-line options, no daemon."""
    for option in ("-h", "--help", "-v", "--version", "--frob", "-x"):
        place.run(option, option)
    place.run("argv command", "start_server", "-uid", "0")
    place.run("no daemon", text="get_server_list\n")
    place.run("no daemon, no command", text="")


def start(place: RecordedPlace) -> None:
    """Both ways of starting, the files, the end."""
    place.start("-d", plainly=True)
    place.note("-d leaves it", alive=place.alive())
    if place.alive():
        place.ask("quit", step="quit of -d")
        wait_for("the daemon's end", lambda: not place.alive() or None)
    place.start("start")
    place.files("files of a daemon")
    place.note("log of a start", log=place.news())
    place.run("second -d", "-d", *(["-L"] if place.recorder.lazy else []))
    place.run("second -f", "-f", *(["-L"] if place.recorder.lazy else []))
    place.note("log of the second", log=place.news())
    place.ask("quit")
    wait_for("the daemon's end", lambda: not place.alive() or None)
    place.files("files after quit")


def commands(place: RecordedPlace) -> None:
    """Every command, well and badly formed, on a daemon without servers."""
    place.start()
    place.news()
    for line in COMMANDS:
        place.ask(line)
    place.ask("", step="empty line")
    place.ask("get_default_client_priority", "foo", "get_default_active_thread_percentage", step="three in one")
    place.run("no newline at the end", text="get_default_client_priority")


def quits(place: RecordedPlace) -> None:
    """The ways to quit."""
    for line in ("quit", "quit -t 5", "quit -t", "quit now"):
        place.start(f"start for {line}")
        place.news()
        place.ask(line)
        wait_for("the daemon's end", lambda: not place.alive() or None)
        seen = place.seen[line]
        # The exit status of quit is not reliable in the real daemon: the log's last line is what counts.
        seen.pop("rc")


def server_dies(place: RecordedPlace) -> None:
    """start_server where no server can live: without a GPU."""
    place.start()
    place.news()
    _doomed(place, "start_server -uid 0")
    server = (place.logs / "server.log").read_text().splitlines()
    place.note("server.log", log=[place.plain(line) for line in server])


def _doomed(place: RecordedPlace, line: str) -> None:
    """A command that starts a server which dies; the front end and the server log side by side, so the lines are
    sorted."""
    seen = place.ask(line)
    wait_for("the server's end", lambda: _deaths(place) >= 1 or None)
    if not place.recorder.lazy:
        wait_for("the tidying", lambda: any("Removed Shm" in text for _, _, text in place.lines()) or None)
    lines = [*seen["log"], *place.news()] if isinstance(seen["log"], list) else []
    seen["log"] = sorted(lines)


def client(place: RecordedPlace) -> None:
    """A CUDA program asks for a server where none can live."""
    place.start()
    place.news()
    done = subprocess.run(
        place.recorder.client,
        env=place.env(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        cwd=place.folder,
    )
    codes = [word for word in done.stdout.replace("=", " ").split() if word.isdigit()]
    wait_for("the last server's end", lambda: _deaths(place) >= 6 or None)
    place.note("cuInit", code=codes[-1] if codes else "none")
    place.note("log", log=place.news())


def _deaths(place: RecordedPlace) -> int:
    return sum("exited with status" in text for _, _, text in place.lines())


def signals(place: RecordedPlace) -> None:
    """What a killed daemon leaves, and that the next one starts over it."""
    for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        place.start(f"start before {sign.name}")
        place.news()
        place.kill(sign)
        place.files(f"files after {sign.name}")
        place.note(f"log after {sign.name}", log=place.news())
        place.run(f"front end after {sign.name}", text="get_server_list\n")
    place.start("start over it")
    place.ask("get_default_active_thread_percentage")


def directories(place: RecordedPlace) -> None:
    """Directories that cannot be used, and directories that are there already."""
    good = place.pipe
    place.pipe = place.folder / "missing" / "p"
    place.start("parent of the pipe directory missing")
    (place.folder / "file").touch()
    place.pipe = place.folder / "file"
    place.start("pipe directory is a file")
    place.pipe = place.folder / ("x" * 100)
    place.start("path of the socket too long")
    place.files("files of a path too long")
    place.pipe = good
    place.logs = place.folder / "missing" / "l"
    place.start("parent of the log directory missing")
    answer = place.run("front end without logs", text="get_default_client_priority\n")
    place.note("alive without logs", alive=answer["stdout"] == "0\n")
    place.run("quit without logs", text="quit\n")
    place.seen.pop("quit without logs")
    wait_for("the end", lambda: place.run("probe", text="")["rc"] == 1 or None)
    place.seen.pop("probe")
    place.pipe, place.logs = place.folder / "ready-p", place.folder / "ready-l"
    for folder in (place.pipe, place.logs):
        folder.mkdir(mode=0o755)
    place.start("directories are there")
    place.files("directories keep their modes")


def environment(place: RecordedPlace) -> None:
    """Settings from the daemon's environment."""
    place.start("start with 30", CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="30")
    place.ask("get_default_active_thread_percentage", step="30")
    place.ask("set_default_active_thread_percentage 60", step="raised")
    place.kill()
    for value in ("0", "200", "abc"):
        place.start(f"start with {value}", CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=value)
        if place.alive():
            place.ask("get_default_active_thread_percentage", step=value, whole=True)
        place.kill()


def foreground(place: RecordedPlace) -> None:
    """-f: the log on standard output."""
    argv = [place.recorder.binary, "-f", *(["-L"] if place.recorder.lazy else [])]
    process = subprocess.Popen(argv, env=place.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    wait_for("the daemon", lambda: place.run("probe", text="get_server_list\n")["rc"] == 0 or None)
    place.seen.pop("probe")
    place.run("quit", text="quit\n").pop("rc")
    out, _ = process.communicate(timeout=LIMIT)
    lines = place.plain(out).splitlines()
    kept = [line for line in lines if "UI" not in line and "Cmd" not in line and "Accept" not in line]
    place.note("standard output", lines=kept)
    place.files("files")


def busy(place: RecordedPlace) -> None:
    """A second front end while one is open gets an answer that is none, in several ways."""
    place.start()
    first = subprocess.Popen(
        [place.recorder.binary], env=place.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    wait_for("the first front end", lambda: any(text == "NEW UI" for _, _, text in place.lines()) or None)
    ways = set()
    for _ in range(place.recorder.tries):
        seen = place.run("probe", text="get_default_active_thread_percentage\n")
        ways.add((seen["rc"], seen["stdout"], seen["stderr"]))
    place.seen.pop("probe")
    place.note("second front end", ways=[list(way) for way in sorted(ways, key=str)])
    first.communicate("get_default_client_priority\n", timeout=LIMIT)
    place.note("first front end", rc=first.returncode)


def long_line(place: RecordedPlace) -> None:
    """Where a long line kills the daemon."""
    for length in (1000, 4000, 4200, 8300):
        place.start(f"start before {length}")
        place.run(f"{length} characters", text="x" * length + "\n")
        seen = place.seen[f"{length} characters"]
        seen["stdout"] = str(seen["stdout"])[:60].replace("x" * 30, "<x>")
        verdict = place.run("probe", text="get_default_client_priority\n")
        place.seen.pop("probe")
        seen["alive"] = place.alive()
        seen["answers"] = verdict["stdout"] == "0\n"
        if not seen["alive"]:
            seen |= {"rc": "0 or 1", "stdout": "the answer or nothing: the daemon's death is a race", "stderr": ""}
        place.kill()


def other_user(place: RecordedPlace) -> None:
    """Another user at root's daemon."""
    place.start()
    place.news()
    for line in (
        "get_server_list",
        "get_default_active_thread_percentage",
        "set_default_active_thread_percentage 40",
        "set_default_client_priority 1",
        "set_default_device_pinned_mem_limit 0 2G",
        "start_server -uid 0",
        "quit",
    ):
        place.ask(line, user=OTHER_UID)
    place.note("after quit", alive=place.alive())


def user_daemon(place: RecordedPlace) -> None:
    """An ordinary user's own daemon, asked by root."""
    place.start(user=OTHER_UID)
    place.files("files")
    place.news()
    _doomed(place, "start_server -uid 0")
    place.ask("set_default_active_thread_percentage 40")
    place.ask("quit", user=OTHER_UID, step="quit")["rc"] = "not reliable"


def partitions(place: RecordedPlace) -> None:
    """-S, where no GPU can be partitioned; branches before 595 know neither the option nor the commands."""
    if place.recorder.dialect != "595":
        return
    place.start("start -S", "-S")
    place.news()
    for line in ("lspart", "sm_partition", "sm_partition add GPU-0 1", "sm_partition rm GPU-0/a", "sm_partition foo"):
        place.ask(line)


SCENARIOS: dict[str, Callable[[RecordedPlace], None]] = {
    "options": options,
    "start": start,
    "commands": commands,
    "quit": quits,
    "server dies": server_dies,
    "client": client,
    "signals": signals,
    "directories": directories,
    "environment": environment,
    "foreground": foreground,
    "busy": busy,
    "long line": long_line,
    "partitions": partitions,
}
ROOT_SCENARIOS = {"other user": other_user, "user's daemon": user_daemon}
if os.geteuid() == 0:
    SCENARIOS |= ROOT_SCENARIOS
