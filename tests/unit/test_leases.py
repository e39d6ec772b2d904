"""Lease files: what is trusted, what is refused, and that a reader never sees half of one."""

import os
import resource
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.adapters.linux import guarded_files
from resilience.adapters.linux.leases import LeaseFiles
from resilience.adapters.linux.rooms import Rooms
from resilience.model.errors import WireError
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName, ServerId
from resilience.model.lease import Isolation, Lease, LeaseState
from resilience.model.options import JobOptions
from resilience.model.settings import Paths
from resilience.parse.lease import render
from tests.unit.domain_world import MemoryJournal

JOB = JobId(12)
LEASE = Lease(
    job=JOB,
    uid=1001,
    gid=1001,
    user="alice",
    node=NodeName("n0"),
    restart=0,
    state=LeaseState.OPEN,
    reason="",
    options=JobOptions(mps=True),
    domain=DomainKey("u1001"),
    isolation=Isolation.DOMAINS,
    slots=(),
    colors=(Color("a"), Color("b")),
    gpus=((GpuMinor(0), GpuUuid("GPU-1")),),
    run="/run/mpsr",
    log="/var/log/mpsr",
    agent="/run/mpsr/n0/agent.sock",
    python="/usr/bin/python3",
    spill="",
    opened=1790000000.123,
)
SERVER = ServerId(domain=DomainKey("u1001"), gpu=GpuMinor(0), color=Color("b"))
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes files of other users")


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def files(run: Path, journal: MemoryJournal | None = None) -> LeaseFiles:
    return LeaseFiles(str(run), NodeName("n0"), journal or MemoryJournal(), trusted=os.geteuid())


def test_names_that_are_the_same_on_each_node_lead_to_the_nodes_own(run: Path) -> None:
    leases = files(run)
    (run / "n0/d/u1001/g0").mkdir(parents=True)
    leases.set_active(SERVER)
    leases.write(LEASE)
    here = run / ".here/jobs"
    assert {link.name: str(link.readlink()) for link in here.iterdir()} == {
        "12.lease": f"{run}/n0/jobs/12.lease",
        "12.pipe": f"{run}/n0/d/u1001/g0/b",
    }
    leases.write(replace(LEASE, state=LeaseState.REFUSED, colors=(), gpus=()))
    assert [link.name for link in here.iterdir()] == ["12.lease"]
    assert leases.remove(JOB) == ()
    assert list(here.iterdir()) == []


def test_another_node_of_the_same_host_keeps_its_names(run: Path) -> None:
    leases, other = files(run), LeaseFiles(str(run), NodeName("n00"), MemoryJournal(), trusted=os.geteuid())
    other.write(LEASE)
    leases.write(LEASE)
    assert leases.remove(JOB) == ()
    assert (run / ".here/jobs/12.lease").readlink() == run / "n00/jobs/12.lease"


def test_a_lease_comes_back_as_it_was_written(run: Path) -> None:
    leases = files(run)
    assert leases.read(JOB) is None
    leases.write(LEASE)
    assert leases.read(JOB) == LEASE
    assert leases.all() == (LEASE,)
    assert stat.S_IMODE(os.stat(leases.path(JOB)).st_mode) == 0o644
    assert leases.remove(JOB) == ()
    assert leases.read(JOB) is None
    assert leases.remove(JOB) == ()


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_lease_that_others_may_write_is_refused(run: Path, mode: int) -> None:
    leases = files(run)
    leases.write(LEASE)
    os.chmod(leases.path(JOB), mode)
    with pytest.raises(WireError, match=f"mode {mode:04o}"):
        leases.read(JOB)


@root
def test_a_lease_of_somebody_else_is_refused(run: Path) -> None:
    leases = files(run)
    leases.write(LEASE)
    os.chown(leases.path(JOB), 65534, -1)
    with pytest.raises(WireError, match="uid 65534"):
        leases.read(JOB)


@pytest.mark.parametrize("above", [".", "n0", "n0/jobs"])
def test_a_directory_that_others_may_write_is_named(run: Path, above: str) -> None:
    leases = files(run)
    leases.write(LEASE)
    directory = run / above
    directory.chmod(0o777)
    with pytest.raises(WireError, match="can be written by others: mode 0777") as caught:
        leases.read(JOB)
    assert caught.value.subject == os.path.normpath(directory)


@root
def test_a_directory_of_somebody_else_is_named(run: Path) -> None:
    leases = files(run)
    leases.write(LEASE)
    os.chown(run / "n0", 65534, -1)
    with pytest.raises(WireError, match="is not owned by root: uid 65534") as caught:
        leases.read(JOB)
    assert caught.value.subject == str(run / "n0")


def test_links_are_not_followed(run: Path, tmp_path: Path) -> None:
    leases = files(run)
    leases.write(LEASE)
    target = tmp_path / "elsewhere"
    os.rename(leases.path(JOB), target)
    os.symlink(target, leases.path(JOB))
    with pytest.raises(WireError, match="lease"):
        leases.read(JOB)
    os.rename(run / "n0", tmp_path / "n0")
    os.symlink(tmp_path / "n0", run / "n0")
    with pytest.raises(WireError, match="is a symbolic link"):
        leases.read(JOB)


def test_a_fifo_does_not_hold_the_reader(run: Path) -> None:
    leases = files(run)
    leases.write(LEASE)
    leases.remove(JOB)
    os.mkfifo(leases.path(JOB))
    with pytest.raises(WireError, match="not a regular file"):
        leases.read(JOB)


def test_the_lease_of_another_job_under_this_name_is_refused(run: Path) -> None:
    leases = files(run)
    leases.write(LEASE)
    os.rename(leases.path(JOB), leases.path(JobId(13)))
    with pytest.raises(WireError, match="is of job 12"):
        leases.read(JobId(13))


def test_a_broken_lease_is_told_once_and_left_out(run: Path) -> None:
    journal = MemoryJournal()
    leases = files(run, journal)
    leases.write(LEASE)
    Path(leases.path(JobId(13))).write_text("version=1\njob=13\n")
    (run / "n0/jobs/notes.lease").write_text("")
    assert [leases.all(), leases.all()] == [(LEASE,), (LEASE,)]
    assert len(journal.of("observation")) == 1
    assert "13.lease" in str(journal.of("observation")[0]["text"])


@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(lambda text, at: render(LEASE).encode()[:at] + text, st.binary(max_size=30), st.integers(0, 600)),
    )
)
def test_any_bytes_are_a_lease_or_a_clear_error(run: Path, data: bytes) -> None:
    leases = files(run)
    leases.write(LEASE)
    Path(leases.path(JOB)).write_bytes(data)
    try:
        lease = leases.read(JOB)
    except WireError:
        pass
    else:
        assert lease is not None
        assert lease.job == JOB


def test_a_reader_never_sees_half_a_lease(run: Path) -> None:
    leases = files(run)
    leases.write(LEASE)
    versions = [replace(LEASE, reason=letter * 4000) for letter in "xy"]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for one in versions:
                leases.write(one)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {leases.read(JOB) for _ in range(200)}
    finally:
        stop.set()
        writer.join()
    assert seen <= {LEASE, *versions}


def test_what_a_killed_writer_left_goes_with_the_lease(run: Path) -> None:
    leases = files(run)
    leases.write(LEASE)
    half = Path(f"{leases.path(JOB)}.999.new")
    half.write_text("version=1\n")
    other = run / "n0/jobs/120.lease.5.new"
    other.write_text("")
    assert leases.remove(JOB) == ()
    assert not half.exists()
    assert other.exists()


def test_the_active_colour(run: Path) -> None:
    leases = files(run)
    guarded_files.make_dirs(str(run / "n0/d/u1001"))
    assert leases.active(SERVER) is None
    leases.set_active(SERVER)
    assert leases.active(SERVER) == "b"
    for word in ("", "a b", "../x", "c", "q0", "é"):
        (run / "n0/d/u1001/g0/active").write_text(word)
        assert leases.active(SERVER) is None


def test_servers_and_domains_are_found_by_their_directories(run: Path) -> None:
    leases = files(run)
    for name in ("u1001/g0/a", "u1001/g0/q12", "u1001/g1", "shared/g0/b", "j12", "strange/g0/a", "u1001/g0/.a.talk"):
        guarded_files.make_dirs(str(run / "n0/d" / name))
    assert leases.domains() == ("j12", "shared", "u1001")
    found = [(server.gpu, server.color) for server in leases.servers(DomainKey("u1001"))]
    assert found == [(0, "a"), (0, "q12"), (1, "a")]


@root
def test_the_directory_of_a_job_is_its_users(run: Path) -> None:
    leases = files(run)
    leases.write(LEASE)
    leases.make_job_dir(LEASE, Rooms(LEASE.node, Paths(run=str(run)), 0))
    info = os.stat(leases.job_dir(JOB))
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1001, 1001, 0o700)
    assert leases.remove_job_dir(JOB) == ()
    assert not os.path.exists(leases.job_dir(JOB))


def test_removing_a_tree_never_leaves_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/link").symlink_to(outside)
    (tree / "file").symlink_to(outside / "precious")
    os.mkfifo(tree / "deep/fifo")
    assert guarded_files.remove_tree(str(tree)) == ""
    assert not tree.exists()
    assert (outside / "precious").read_text() == "x"
    assert guarded_files.remove_tree(str(tree)) == ""


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="link"):
        guarded_files.make_dir(str(tmp_path / "link"), mode=0o700)
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) != 0o700


def test_a_write_that_fails_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            guarded_files.write_whole(str(path), "new " * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_reading_a_log_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first" + "x" * 1000 + "last")
    assert guarded_files.read_regular(str(log), limit=5) == "first"
    assert guarded_files.read_regular(str(log), limit=4, tail=True) == "last"
    assert guarded_files.read_or_empty(str(tmp_path / "none")) == ""
    (tmp_path / "link").symlink_to("/etc/shadow")
    assert guarded_files.read_or_empty(str(tmp_path / "link")) == ""
