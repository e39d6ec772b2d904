"""Programs that root starts as a user: what they are given, that none of them gets away, and that all of them are ended.

With each way that a kernel offers to hold them: cgroup v2, with and without cgroup.kill, v1's freezer, and descent from a
reaper where there are no cgroups.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from resilience.adapters.linux import cgroups, reapers
from resilience.adapters.linux.commands import run
from tests.cluster.sandbox import wait_for

ROOT = Path(__file__).parents[2]
SECONDS = 15.0
USER = 12345
PYTHON = ("/usr/bin/python3", "-IS", "-c")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as a prolog is"),
    pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler"),
]
HIDES = """
import os, sys, time
for way in range(4):
    if os.fork():
        continue
    os.setsid()
    if os.fork():
        os._exit(0)
    if way == 1:
        os.execve("/bin/sleep", ["kworker/u8:1", "600"], {})
    if way == 2:
        os.kill(os.getpid(), 19)
    if way == 3:
        os.closerange(0, 64)
        os.chdir("/tmp")
    time.sleep(600)
time.sleep(600 if sys.argv[1:] else 0)
"""
RUNS = """
import os
for _ in range(4):
    if os.fork() == 0:
        while True:
            if os.fork():
                os._exit(0)
"""
"""Four that are never the same for long: each is its own child's parent for a moment."""
TRACED = """
import ctypes, os, time
reader, writer = os.pipe()
parent = os.getpid()
ctypes.CDLL(None).prctl(0x59616d61, -1, 0, 0, 0)
if os.fork() == 0:
    failed = ctypes.CDLL(None).ptrace(0x4206, parent, 0, 0)
    os.write(writer, b"n" if failed else b"y")
    time.sleep(600)
os.write(1, os.read(reader, 1))
"""
"""Its child traces it and does not take note of its end: who has started it is not told of that as long as so."""
SHOWS = "cat /proc/self/oom_score_adj; grep -E '^(NoNewPrivs|Groups|Uid|Gid):' /proc/self/status; ls /proc/self/fd"


@pytest.fixture(scope="module")
def enter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """mpsr-enter, built."""
    out = tmp_path_factory.mktemp("enter")
    subprocess.run(["make", "-s", "-C", ROOT / "spank_plugin", f"OUT={out}"], check=True)
    return str(out / "mpsr-enter")


@dataclass
class Way:
    """One of the ways to hold what is started."""

    entrance: tuple[str, ...]
    members: Callable[[], set[int]]
    end: Callable[[float], set[int]]

    def start(self, *argv: str, uid: int = USER, timeout: float = SECONDS) -> tuple[int, str, str]:
        words = [*self.entrance, str(uid), str(uid), "-", *argv]
        ran = run(words, stdin=b"", env={"PATH": "/usr/bin:/bin"}, timeout=timeout)
        return ran.status, ran.stdout, ran.stderr


def hierarchies(kind: str) -> cgroups.Hierarchies:
    """Those of this host that are of one kind; leaves the test out where it has none."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    wanted = [line for line in lines if (" - cgroup2 " in line) == (kind == "v2")]
    found = cgroups.mounted("\n".join(wanted))
    if found is None or not os.access(found.tracking, os.W_OK):
        pytest.skip(f"no cgroup {kind} that can be written on this host")
    return found


@pytest.fixture(params=["v2", "v2-no-kill", "v1", "reaper"])
def way(request: pytest.FixtureRequest, enter: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    name = f"/mpsr-test-{os.getpid()}"
    if request.param == "reaper":
        made = Way((enter, "-r", name), lambda: reapers.members(name), lambda seconds: reapers.end(name, seconds))
        yield made
        assert reapers.end(name, SECONDS) == set()
        return
    cgroup = cgroups.Cgroup(hierarchies(request.param[:2]), f"{name}/n0/u1/g0.a")
    if request.param == "v2-no-kill":
        put = cgroups._put
        monkeypatch.setattr(cgroups, "_put", lambda path, text: not path.endswith(".kill") and put(path, text))
    files = [word for file in cgroup.make() for word in ("-c", file)]
    yield Way((enter, *files), cgroup.members, cgroup.end)
    assert cgroup.end(SECONDS) == set()
    cgroup.remove()
    assert not any(os.path.exists(os.path.dirname(file)) for file in files)


def test_a_program_has_the_rights_of_its_user_and_nothing_of_roots(way: Way) -> None:
    mine = Path("/proc/self/oom_score_adj")
    before = mine.read_text()
    try:
        mine.write_text("500")  # as an agent's OOMScoreAdjust, but one that anybody may set
        status, out, err = way.start("sh", "-c", SHOWS)
    finally:
        mine.write_text(before)
    ids = f"{USER}\t{USER}\t{USER}\t{USER}"
    expected = ["0", f"Uid:\t{ids}", f"Gid:\t{ids}", "Groups:\t ", "NoNewPrivs:\t1"]
    assert (status, err) == (0, "")
    assert out.splitlines()[:5] == expected
    assert out.split()[-4:] == ["0", "1", "2", "3"]  # 3 is the listing's own


@pytest.mark.parametrize(("code", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_its_status_is_the_programs(way: Way, code: str, status: int) -> None:
    assert way.start("sh", "-c", code)[0] == status


def test_a_program_that_is_not_there_is_as_in_a_shell(way: Way) -> None:
    assert way.start("no-such-program")[::2] == (127, "not found\n")
    assert way.start("/etc/passwd")[0] == 126


def test_it_is_held_before_its_first_instruction(way: Way) -> None:
    way.start(*PYTHON, HIDES)
    wait_for(lambda: len(way.members()) == 4, SECONDS, lambda: f"{way.members()}")
    assert {os.stat(f"/proc/{pid}").st_uid for pid in way.members()} == {USER}


def test_whatever_hides_is_ended(way: Way) -> None:
    way.start(*PYTHON, HIDES)
    hidden = wait_for(lambda: found if len(found := way.members()) == 4 else None, SECONDS)
    assert hidden is not None
    bystander = subprocess.Popen(["sleep", "600"], user=USER, group=USER, extra_groups=[])
    try:
        assert way.end(SECONDS) == set()
        assert [pid for pid in hidden if living(pid)] == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_what_forks_faster_than_one_can_look_is_ended(way: Way) -> None:
    way.start(*PYTHON, RUNS)
    wait_for(way.members, SECONDS)
    assert way.end(SECONDS) == set()
    assert way.members() == set()


def test_another_pid_namespace_is_no_way_out(way: Way) -> None:
    way.start("sh", "-c", "unshare --pid --fork --mount-proc setsid sleep 600 >/dev/null 2>&1 &", uid=0)
    wait_for(lambda: len(way.members()) >= 2, SECONDS)
    inside = way.members()
    assert way.end(SECONDS) == set()
    assert [pid for pid in inside if living(pid)] == []


def test_a_program_that_is_late_is_ended(way: Way) -> None:
    began = time.monotonic()
    assert way.start("sleep", "600", timeout=0.3)[0] == 128 + signal.SIGKILL
    assert time.monotonic() - began < SECONDS
    wait_for(lambda: not way.members(), SECONDS)


def test_who_traces_a_program_does_not_hold_up_root(way: Way) -> None:
    began = time.monotonic()
    _, out, _ = way.start(*PYTHON, TRACED, timeout=3.0)
    assert out == "y"
    assert time.monotonic() - began < SECONDS
    assert way.end(SECONDS) == set()


def test_a_reaper_goes_with_the_last_of_them(enter: str) -> None:
    label = f"/mpsr-test-last-{os.getpid()}"
    held = Way((enter, "-r", label), lambda: reapers.members(label), lambda seconds: reapers.end(label, seconds))
    held.start("sh", "-c", "sleep 600 &")
    (pid,) = wait_for(held.members, SECONDS)
    assert len(reapers.reapers(label)) == 1
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not reapers.reapers(label), SECONDS)


@pytest.fixture
def copied() -> Iterator[Path]:
    """A directory that every user can enter."""
    home = Path(tempfile.mkdtemp(prefix="mpsr-enter-", dir="/tmp"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


def test_a_users_process_is_no_reaper(enter: str, copied: Path) -> None:
    """Nothing below it is ended, whatever it calls itself."""
    label = f"/mpsr-test-false-{os.getpid()}"
    mine = copied / "mpsr-enter"
    shutil.copy(enter, mine)
    false = subprocess.Popen(
        [mine, "-r", label, "0", "0", "-", "sh", "-c", "echo $$; sleep 600"],
        user=USER, group=USER, extra_groups=[], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert false.stdout is not None
    program = int(false.stdout.readline())
    above = Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1]
    try:
        assert Path(f"/proc/{above}/comm").read_text() == "mpsr-enter\n"
        assert reapers.reapers(label) == set()
        assert reapers.end(label, 1.0) == set()
        assert living(program)
    finally:
        os.killpg(program, signal.SIGKILL)
        false.wait()
        false.stdout.close()


@pytest.mark.parametrize("kind", ["v2", "v1"])
def test_a_user_cannot_leave(kind: str, enter: str) -> None:
    found = hierarchies(kind)
    name = f"/mpsr-test-leave-{os.getpid()}"
    cgroup = cgroups.Cgroup(found, f"{name}/n0/u1/g0.a")
    place = f"{found.tracking}{name}/n0/u1/g0.a"
    code = f"""
for place in {found.tracking} {found.tracking}{name} {place}; do
    echo $$ 2>/dev/null >$place/cgroup.procs && echo left for $place
    mkdir $place/mine 2>/dev/null && echo made $place/mine
done
grep -c '{name}/n0/u1/g0.a$' /proc/self/cgroup
"""
    try:
        files = [word for file in cgroup.make() for word in ("-c", file)]
        held = Way((enter, *files), cgroup.members, cgroup.end)
        assert held.start("bash", "-c", code)[1] == f"{len(files) // 2}\n"
    finally:
        cgroup.remove()


def test_what_cannot_be_held_is_not_started(enter: str, tmp_path: Path) -> None:
    words = [enter, "-c", "/proc/self/nothing", str(USER), str(USER), "-", "touch", str(tmp_path / "ran")]
    ran = run(words, stdin=b"", env={"PATH": "/usr/bin:/bin"}, timeout=SECONDS)
    assert (ran.status, ran.stderr) == (125, "mpsr: enter: /proc/self/nothing: No such file or directory\n")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["1", "1", "-"],
            "mpsr: enter: usage: mpsr-enter [-c FILE]... [-r LABEL] UID GID GROUPS PROGRAM [ARGUMENT]...",
        ),
        (["-1", "1", "-", "true"], "mpsr: enter: not a user or group: -1"),
        (["1", "4294967295", "-", "true"], "mpsr: enter: not a user or group: 4294967295"),
        (["1", "1", "5,x", "true"], "mpsr: enter: not a user or group: x"),
        (["1", "1", "", "true"], "mpsr: enter: not a user or group: "),
    ],
)
def test_words_that_make_no_sense_start_nothing(enter: str, words: list[str], line: str) -> None:
    ran = run([enter, "--", *words], stdin=b"", env={"PATH": "/usr/bin:/bin"}, timeout=SECONDS)
    assert (ran.status, ran.stderr) == (125, f"{line}\n")


def test_supplementary_groups_are_the_users(enter: str) -> None:
    ran = run([enter, "7", "8", "8,9,10", "id", "-G"], stdin=b"", env={"PATH": "/usr/bin:/bin"}, timeout=SECONDS)
    assert (ran.status, ran.stdout) == (0, "8 9 10\n")


HEAD = "31 24 0:26 / /sys/fs/cgroup{} rw,relatime - "


@pytest.mark.parametrize(
    ("lines", "tracking", "accounting"),
    [
        ([HEAD.format("") + "cgroup2 cgroup2 rw,nsdelegate"], "/sys/fs/cgroup", ()),
        (
            [
                HEAD.format("/unified") + "cgroup2 cgroup2 rw",
                HEAD.format("/memory") + "cgroup cgroup rw,memory",
                HEAD.format("/cpu,cpuacct") + "cgroup cgroup rw,cpu,cpuacct",
            ],
            "/sys/fs/cgroup/unified",
            ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu,cpuacct"),
        ),
        ([HEAD.format("/freezer") + "cgroup cgroup rw,freezer"], "/sys/fs/cgroup/freezer", ()),
        ([HEAD.format("/a\\040b") + "cgroup2 cgroup2 rw"], "/sys/fs/cgroup/a b", ()),
        ([HEAD.format("/systemd") + "cgroup cgroup rw,xattr,name=systemd", "", "nonsense - x"], None, ()),
    ],
)
def test_hierarchies_are_found_where_they_are_mounted(
    lines: list[str], tracking: str | None, accounting: tuple[str, ...]
) -> None:
    found = cgroups.mounted("\n".join(lines))
    assert (found and found.tracking, found.accounting if found else ()) == (tracking, accounting)


def living(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
