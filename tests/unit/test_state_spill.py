"""Spilled state on disk: whole or not there, only for the job that wrote it, and damage is named."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.model.errors import StateError
from resilience.state import spillfile
from resilience.state.layout import ArraySpec
from resilience.state.record import HELD, Commit
from resilience.state.spillfile import SpillPlace
from resilience.state.spills import Spills

ENVIRON = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "3", "SLURM_PROCID": "1", "MPSR_TOKEN": "t"}
U = ArraySpec(name="u", shape=(3, 2), dtype="float64")
N = ArraySpec(name="n", shape=(4,), dtype="int8")


def where(directory: Path, owner: str = "solve", **environ: str) -> SpillPlace:
    place = spillfile.place(ENVIRON | {"MPSR_SPILL": str(directory)} | environ, owner)
    assert place is not None
    return place


def put(place: SpillPlace, sequence: int = 5) -> None:
    content = [(U, bytes(range(48))), (N, b"\x01\x02\x03\x04")]
    spillfile.write(place, Commit(sequence, HELD, 99, {"r": 0.1}), filled={}, content=content)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    place = where(tmp_path / "a" / "b")
    put(place)
    found = spillfile.read(place)
    assert found is not None
    assert (found.sequence, found.step, found.values) == (5, 99, {"r": 0.1})
    assert found.content == {"u": bytearray(range(48)), "n": bytearray(b"\x01\x02\x03\x04")}
    assert place.path.stat().st_mode & 0o777 == 0o600
    assert place.directory.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in place.directory.iterdir()] == ["12.solve.1.state"]


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_file_is_never_gone_on_from(tmp_path: Path, data: st.DataObject) -> None:
    place = where(tmp_path)
    put(place)
    whole = place.path.read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at, flip = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
        damaged = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    place.path.write_bytes(damaged)
    with pytest.raises(StateError, match=r"12\.solve\.1\.state"):
        spillfile.read(place)


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_file_is_state_or_an_error(tmp_path: Path, content: bytes) -> None:
    place = where(tmp_path)
    place.path.write_bytes(content)
    with pytest.raises(StateError, match="damaged"):
        spillfile.read(place)


def test_who_may_go_on_from_it(tmp_path: Path) -> None:
    put(where(tmp_path, SLURM_RESTART_COUNT="1"))
    same_run = where(tmp_path, SLURM_RESTART_COUNT="1")
    assert spillfile.usable(same_run) is not None
    requeued = where(tmp_path, SLURM_RESTART_COUNT="2", MPSR_TOKEN="another")
    assert spillfile.usable(requeued) is not None
    first_start = where(tmp_path, MPSR_TOKEN="another")
    assert spillfile.usable(first_start) is None
    assert not first_start.path.exists(), "a leftover of an older job with this number is taken away"


@pytest.mark.parametrize(("said", "seconds"), [("45000", 45.0), ("0", 0.0), ("", 60.0), ("soon", 60.0), ("-1", 60.0)])
def test_the_sites_time_between_spills_holds(tmp_path: Path, said: str, seconds: float) -> None:
    environ = ENVIRON | {"MPSR_SPILL": str(tmp_path), "MPSR_SPILL_MS": said}
    spills = Spills(environ, None)
    spills.begin()
    assert spills._thread is not None
    assert spills._thread._seconds == seconds
    assert Spills(environ, 7.0)._seconds == 7.0, "the program's own choice comes first"


def test_a_spill_of_another_clusters_job_is_not_gone_on_from(tmp_path: Path) -> None:
    put(where(tmp_path, SLURM_CLUSTER_NAME="east"))
    assert spillfile.usable(where(tmp_path, SLURM_CLUSTER_NAME="west", SLURM_RESTART_COUNT="1")) is None
    put(where(tmp_path, SLURM_CLUSTER_NAME="east"))
    assert spillfile.usable(where(tmp_path, SLURM_CLUSTER_NAME="east", SLURM_RESTART_COUNT="1")) is not None


def test_another_living_program_of_the_name_is_not_written_over(tmp_path: Path) -> None:
    """And from then on nobody goes on from either's state: nothing tells whose it is."""
    mine, others = where(tmp_path), where(tmp_path, MPSR_TOKEN="another")
    put(others, 7)
    with pytest.raises(StateError, match="another program of this job has the same name"):
        put(mine)
    found = spillfile.read(others)
    assert found is not None
    assert found.sequence == 7
    with pytest.raises(StateError, match="the same name"):
        put(others)
    for restart in ("1", "2"):
        assert spillfile.usable(where(tmp_path, SLURM_RESTART_COUNT=restart, MPSR_TOKEN="next")) is None


def test_a_run_that_is_over_does_not_write_over_the_next_ones(tmp_path: Path) -> None:
    """A lost node's program may live on when its job runs elsewhere already."""
    old, new = where(tmp_path), where(tmp_path, SLURM_RESTART_COUNT="1", MPSR_TOKEN="another")
    put(old, 3)
    put(new, 9)
    with pytest.raises(StateError, match="the same name"):
        put(old, 4)
    found = spillfile.read(new)
    assert found is not None
    assert found.sequence == 9


@pytest.mark.parametrize("number", [1, 2])
def test_files_of_an_earlier_version_are_told_of_and_not_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    old = b"mpsr-spill-%d\n" % number + bytes(40)
    tmp_path.chmod(0o700)
    (tmp_path / "12.3.1.state").write_bytes(old)
    spills = Spills(ENVIRON | {"MPSR_SPILL": str(tmp_path), "SLURM_RESTART_COUNT": "1"}, None, "solve")
    spills.begin()
    assert spills.found() is None
    told = capsys.readouterr().err
    said = f"{tmp_path}/12.3.1.state is of another version of mpsr: mpsr-spill-{number}\n"
    assert f"mpsr: spill: not gone on from: {said}" in told
    assert "starts afresh" in told
    (tmp_path / "12.solve.1.state").write_bytes(old)
    with pytest.raises(StateError, match=f"is of another version of mpsr: mpsr-spill-{number}") as refused:
        spillfile.read(where(tmp_path))
    assert "damaged" not in str(refused.value)
    assert "remove it to start afresh" in refused.value.hint


@pytest.mark.parametrize("how", ["group", "others", "owner", "link", "fifo"])
def test_a_directory_of_others_is_neither_written_nor_read(tmp_path: Path, how: str) -> None:
    """Who may write it could put an older state in place of the newest, or hold us up with a fifo."""
    place = where(tmp_path / "d")
    put(place)
    match how:
        case "group":
            place.directory.chmod(0o770)
        case "others":
            place.directory.chmod(0o707)
        case "owner" if os.geteuid() == 0:
            os.chown(place.directory, 1, 1)
        case "owner":
            pytest.skip("needs root")
        case "link":
            place.directory.rename(tmp_path / "real")
            place.directory.symlink_to(tmp_path / "real")
        case "fifo":
            place.path.unlink()
            os.mkfifo(place.path)
    with pytest.raises(StateError):
        spillfile.read(place)
    if how != "fifo":
        with pytest.raises(StateError):
            put(place)


def test_tasks_programs_and_jobs_are_apart_and_steps_are_not(tmp_path: Path) -> None:
    put(where(tmp_path))
    for other in ({"SLURM_JOB_ID": "13"}, {"owner": "prep"}, {"SLURM_PROCID": "0"}):
        assert spillfile.read(where(tmp_path, **other)) is None
    assert spillfile.read(where(tmp_path, SLURM_STEP_ID="4")) is not None
    stolen = where(tmp_path, SLURM_PROCID="0")
    where(tmp_path).path.rename(stolen.path)
    with pytest.raises(StateError, match=r"state of 12\.solve\.1"):
        spillfile.read(stolen)


def test_no_link_is_followed_and_no_other_users_file_read(tmp_path: Path) -> None:
    place = where(tmp_path / "d")
    put(place)
    real = tmp_path / "real"
    place.path.rename(real)
    place.path.symlink_to(real)
    with pytest.raises(StateError, match="cannot read"):
        spillfile.read(place)
    if os.geteuid() == 0:
        place.path.unlink()
        real.rename(place.path)
        os.chown(place.path, 65534, 65534)
        with pytest.raises(StateError, match="not a file of this user: uid 65534"):
            spillfile.read(place)


def test_a_full_disk_leaves_the_last_whole_file() -> None:
    """A limit on the size of files stands in for a full disk: both are an OSError of the same write."""
    code = (
        "import resource, signal, sys, pathlib\n"
        "from tests.unit.test_state_spill import put, where\n"
        "from resilience.model.errors import StateError\n"
        "place = where(pathlib.Path(sys.argv[1]))\n"
        "put(place, 1)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n    put(place, 2)\nexcept StateError as error:\n    print(error.lines())\n"
    )
    import subprocess
    import sys
    import tempfile

    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as name:
        done = subprocess.run([sys.executable, "-c", code, name], cwd=root, capture_output=True, text=True, check=True)
        assert "12.solve.1.state: File too large" in done.stdout
        assert "the last whole one stays" in done.stdout
        found = spillfile.read(where(Path(name)))
        assert found is not None
        assert found.sequence == 1
        assert len(list(Path(name).iterdir())) == 1


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    place, other = where(tmp_path), where(tmp_path, SLURM_PROCID="11")
    half = [tmp_path / f".{one.path.name}.4711" for one in (place, other)]
    for file in half:
        file.write_bytes(b"half")
    put(place)
    spillfile.remove(place)
    assert list(tmp_path.iterdir()) == [half[1]]


def test_outside_slurm_nothing_is_spilled() -> None:
    assert spillfile.place({}, "solve") is None
    assert spillfile.place({"MPSR_SPILL": "/x"}, "solve") is None
