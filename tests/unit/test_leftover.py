"""Spilled state goes with its job and not before: the epilog's part, with real files, users and a scripted scontrol."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import contract
from resilience.adapters.linux.spill_records import SpillRecord, SpillRecords
from resilience.cli.main import main
from resilience.hooks import leftovers
from resilience.hooks.node import Node, build
from resilience.hooks.tidy_slurm import TidySlurm
from resilience.model.ids import JobId
from resilience.ports import Done, JobInfo, Refused
from resilience.state import leftover
from tests.unit import squeue_kit
from tests.unit.domain_world import NODE, WallClock, World, world

USER, OTHER = 64201, 64202
JOB = JobId(12)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd's epilog is")

# What squeue says: the state of things as recorded from Slurm 22.05.8 at the moments that matter.
RUNNING = {"State": "RUNNING", "RestartCnt": "0", "EndTime": "2027-11-25T19:23:39", "exit_code": "0"}
FAILED = {"State": "COMPLETING", "RestartCnt": "0", "EndTime": "2026-11-25T19:23:40", "exit_code": "768"}
REQUEUED = {"State": "COMPLETING", "RestartCnt": "1", "EndTime": "NONE", "exit_code": "0"}
REQUEUE_EXIT = {"State": "COMPLETING", "RestartCnt": "0", "EndTime": "2026-11-25T19:24:13", "exit_code": "19200"}
PENDING = {"State": "PENDING", "RestartCnt": "1", "EndTime": "2027-11-25T19:26:14", "exit_code": "19200"}
CANCELLED = {"State": "CANCELLED", "RestartCnt": "1", "EndTime": "2026-11-25T19:26:14", "exit_code": "0"}
UNKNOWN: dict[str, str] = {}


class Site:
    """A node, a user's directory with a job's spills, and what Slurm says."""

    def __init__(self, node: World) -> None:
        program = node.base / "scontrol"
        program.write_text('#!/bin/sh\necho "RequeueExit             = 75,80-82"\n')
        program.chmod(0o755)
        squeue_kit.program(node.base)
        self.world = replace(
            node, settings=replace(node.settings, paths=replace(node.settings.paths, scontrol=str(program)))
        )
        self.base = node.base
        self.job_dir = node.base / "run/n0/jobs/12"
        self.home = node.base / "home"
        self.home.mkdir()
        os.chown(self.home, USER, USER)
        self.spill = self.home / ".mpsr-12"
        self.says(RUNNING)

    def says(self, fields: dict[str, str]) -> None:
        squeue_kit.says(self.base, {12: fields} if fields else {})

    def run(self, directory: Path | None = None, *, files: tuple[str, ...] = ("12.0.0.state",)) -> None:
        """The job runs, refused or not, and a session of it spills."""
        self.world.prolog(self.world.environ(12, uid=USER))
        self.job_dir.mkdir(exist_ok=True, mode=0o700)
        os.chown(self.job_dir, USER, USER)
        note(self.job_dir, str(directory or self.spill))
        fill(directory or self.spill, *files)

    def epilog(self, restart: int = 0) -> str:
        more = {"SLURM_JOB_RESTART_COUNT": str(restart)}
        assert self.world.epilog(self.world.environ(12, uid=USER, more=more)) == 0
        row = self.world.journal.of("job.closed")[-1]
        assert row["residue"] == []
        assert not self.job_dir.exists()
        return str(row["spill"] or "")

    def node(self) -> Node:
        it = self.world
        return build(NODE, os.environ, it.settings, gpus=lambda: it.gpus, clock=WallClock(), journal=it.journal)

    def records(self) -> list[SpillRecord]:
        return [record for _, record in SpillRecords(self.world.settings.paths.state, NODE).all()]


def note(job_dir: Path, directory: object) -> None:
    with (job_dir / "spills").open("a") as file:
        file.write(json.dumps(directory) + "\n")
    os.chown(job_dir / "spills", USER, USER)


def fill(directory: Path, *names: str, uid: int = USER) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chown(directory, uid, uid)
    for name in names:
        (directory / name).write_text("state")
        os.chown(directory / name, uid, uid)


@pytest.fixture
def site() -> Iterator[Site]:
    with world() as node:
        yield Site(node)


def test_the_names_fit_the_contract() -> None:
    notes = contract.path("spill_notes", run="/r", node="n", job=7)
    assert notes == f"{contract.path('job_dir', run='/r', node='n', job=7)}/{leftover.NOTES}"


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize("state", [FAILED, CANCELLED, UNKNOWN, FAILED | {"exit_code": str(83 << 8)}])
def test_of_a_job_that_is_over_nothing_is_left(site: Site, state: dict[str, str]) -> None:
    site.run(
        files=("12.0.0.state", "12.4294967291.3.state", ".12.0.0.state.4711", "12.a.0.state.57", ".12.a.0.state.57.99")
    )
    site.says(state)
    assert site.epilog() == ""
    assert list(site.home.iterdir()) == []
    assert site.records() == []


@pytest.mark.parametrize("state", [REQUEUED, REQUEUE_EXIT, FAILED | {"exit_code": str(81 << 8)}, PENDING, RUNNING])
def test_a_job_that_starts_again_keeps_its_state_until_it_is_over(site: Site, state: dict[str, str]) -> None:
    site.run()
    site.says(state)
    assert site.epilog() == f"kept for the job's next run: {site.spill}"
    assert (site.spill / "12.0.0.state").exists()
    assert [record.job for record in site.records()] == [JOB]
    site.run(files=("12.0.0.state",))
    site.says(FAILED | {"RestartCnt": "1"})
    assert site.epilog(restart=1) == ""
    assert list(site.home.iterdir()) == []
    assert site.records() == []


def test_a_second_run_that_notes_nothing_still_takes_the_first_ones_state_along(site: Site) -> None:
    site.run()
    site.says(REQUEUED)
    site.epilog()
    site.world.prolog(site.world.environ(12, uid=USER))
    site.says(FAILED | {"RestartCnt": "1"})
    assert site.epilog(restart=1) == ""
    assert (list(site.home.iterdir()), site.records()) == ([], [])


def test_a_job_cancelled_while_it_waits_is_cleaned_up_by_a_later_epilog(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.run()
    site.says(REQUEUED)
    site.epilog()
    site.says(CANCELLED)
    site.world.prolog(site.world.environ(13))
    site.world.epilog(site.world.environ(13))
    assert site.spill.exists(), "Slurm was asked only just now"
    record = site.base / "state/n0/spills/12"
    os.utime(record, (0, record.stat().st_mtime - leftovers._REST - 1))
    site.world.epilog(site.world.environ(13))
    assert site.world.journal.of("job.closed")[-1]["swept"] == {"12": "removed"}
    assert (list(site.home.iterdir()), site.records()) == ([], [])


def test_without_slurms_answer_nothing_goes(site: Site) -> None:
    site.run()
    (site.base / "squeue").write_text("#!/bin/sh\necho Unable to contact slurm controller >&2; exit 1\n")
    assert site.epilog().startswith("kept for")
    assert (site.spill / "12.0.0.state").exists()


def test_a_job_without_files_is_not_asked_about_and_its_empty_directory_goes(site: Site) -> None:
    site.run(files=())
    (site.base / "squeue").write_text(f"#!/bin/sh\necho asked >{site.base}/asked\n")
    assert site.epilog() == ""
    assert not (site.base / "asked").exists()
    assert list(site.home.iterdir()) == []


# ---------------------------------------------------------------- while the agent asks for a requeue


class Asked:
    """Slurm, in the middle of a requeue: `during` happens then."""

    def __init__(self, during: object, answer: Done | Refused) -> None:
        self.during, self.answer = during, answer

    def job(self, job: JobId) -> JobInfo:
        raise AssertionError

    def comment(self, job: JobId, text: str) -> Done | Refused:
        raise AssertionError

    def drain(self, node: object, reason: str) -> Done | Refused:
        raise AssertionError

    def kill_wait(self) -> float:
        raise AssertionError

    def ended_at(self, job: JobId) -> float | None:
        raise AssertionError

    def requeue(self, job: JobId, **_: object) -> Done | Refused:
        assert callable(self.during)
        self.during()
        return self.answer


@pytest.mark.parametrize("answer", [Done(), Refused(reason="the job is CANCELLED")])
def test_the_epilog_leaves_the_state_of_a_job_that_the_agent_asks_for(site: Site, answer: Done | Refused) -> None:
    site.run()
    site.says(FAILED)
    said: list[str] = []
    slurm = TidySlurm(Asked(lambda: said.append(site.epilog()), answer), site.node)
    assert slurm.requeue(JOB, comment="x") == answer
    assert said == [f"kept for the job's next run: {site.spill}"]
    assert site.spill.exists() is isinstance(answer, Done)
    assert not (site.base / "run/n0/jobs/12.requeue").exists()


def test_marks_of_a_killed_agent_go_with_the_next(site: Site) -> None:
    site.run()
    (site.base / "run/n0/jobs/12.requeue").touch()
    TidySlurm(Asked(None, Done()), site.node)
    site.says(FAILED)
    assert site.epilog() == ""
    assert list(site.home.iterdir()) == []


# ---------------------------------------------------------------- what a user may try


def test_only_files_of_this_job_are_touched(site: Site) -> None:
    others = (
        "13.0.0.state",
        "12.0.0.state.bak",
        "112.0.0.state",
        "12.0.0.state.x",
        "notes.txt",
        ".12.0.0.state",
        "12.0.state",
    )
    site.run(files=("12.0.0.state", *others))
    site.says(FAILED)
    assert site.epilog() == ""
    assert sorted(path.name for path in site.spill.iterdir()) == sorted(others)


def test_a_link_in_place_of_the_directory_leads_nowhere(site: Site) -> None:
    victim = site.base / "victim"
    fill(victim, "12.0.0.state", uid=USER)  # the user's own, but not where it was noted
    site.run(files=())
    site.spill.rmdir()
    site.spill.symlink_to(victim)
    site.says(FAILED)
    site.epilog()
    assert (victim / "12.0.0.state").exists()


def test_files_of_others_are_out_of_reach(site: Site) -> None:
    """The user notes a directory of another user, and one of root: the epilog has only the user's own rights there."""
    others, roots = site.base / "other", site.base / "roots"
    fill(others, "12.0.0.state", uid=OTHER)
    fill(roots, "12.0.0.state", uid=0)
    others.chmod(0o777)
    roots.chmod(0o777)
    site.run()
    note(site.job_dir, str(others))
    note(site.job_dir, str(roots))
    site.says(FAILED)
    assert site.epilog() == ""
    assert (others / "12.0.0.state").exists()
    assert (roots / "12.0.0.state").exists()
    assert not site.spill.exists()


def test_a_link_among_the_files_is_removed_and_not_followed(site: Site) -> None:
    target = site.home / "precious"
    target.write_text("x")
    site.run(files=())
    (site.spill / "12.0.0.state").symlink_to(target)
    site.says(FAILED)
    site.epilog()
    assert target.read_text() == "x"
    assert not site.spill.exists()


def test_what_a_user_keeps_from_being_removed_is_told_and_drains_no_node(site: Site) -> None:
    site.run()
    site.spill.chmod(0o500)
    site.says(FAILED)
    site.world = site.world.drained()
    said = site.epilog()
    assert said == f"left behind: {site.spill}/12.0.0.state: Permission denied"


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "absent"])
def test_notes_that_are_no_file_are_no_notes(site: Site, kind: str) -> None:
    site.run()
    notes = site.job_dir / "spills"
    notes.unlink()
    secret = site.base / "secret"
    secret.write_text(json.dumps(str(site.spill)))
    secret.chmod(0o600)
    match kind:
        case "link":
            notes.symlink_to(secret)
        case "fifo":
            os.mkfifo(notes)
        case "directory":
            notes.mkdir()
    site.says(FAILED)
    assert site.epilog() == ""
    assert site.spill.exists()


@settings(max_examples=200)
@given(
    st.lists(st.binary(max_size=200) | st.sampled_from([b'"/"', b"[]", b'{"a":1}', b'"rel"', b"[" * 3000]), max_size=9)
)
def test_any_notes_are_read_without_an_exception(tmp_path: Path, lines: list[bytes]) -> None:
    (tmp_path / "spills").write_bytes(b"\n".join(lines))
    assert all(path.startswith("/") and "\0" not in path for path in leftover.noted(str(tmp_path / "spills")))


@settings(max_examples=100)
@given(st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5).map(
    lambda value: json.dumps({"job": value, "uid": 1, "gid": 1, "restart": value, "directories": value}).encode()
))  # fmt: skip
def test_any_record_is_read_without_an_exception(tmp_path: Path, text: bytes) -> None:
    records = SpillRecords(str(tmp_path), NODE)
    (tmp_path / "n0/spills").mkdir(parents=True, exist_ok=True)
    (tmp_path / "n0/spills/12").write_bytes(text)
    assert isinstance(records.all(), tuple)


# ---------------------------------------------------------------- noting


def test_a_directory_is_noted_once(tmp_path: Path) -> None:
    environ = {"MPSR_KEEPER": str(tmp_path / "k0.0")}
    for _ in range(3):
        leftover.note(environ, "/a\nb")
    leftover.note(environ, "/c")
    assert leftover.noted(str(tmp_path / "spills")) == ["/a\nb", "/c"]
    leftover.note({}, "/d")
    leftover.note({"MPSR_KEEPER": str(tmp_path / "gone/k0.0")}, "/d")


# ---------------------------------------------------------------- mpsr spills


@pytest.fixture
def command(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    paths = site.world.settings.paths
    config = site.base / "mpsr.yaml"
    config.write_text(
        f"paths:\n  run: {paths.run}\n  log: {paths.log}\n  state: {paths.state}\n  scontrol: {paths.scontrol}\n"
    )
    monkeypatch.setenv("MPSR_CONFIG", str(config))
    monkeypatch.setenv("SLURMD_NODENAME", "n0")
    return site


def test_the_nodes_records_are_shown_and_cleaned(command: Site, capsys: pytest.CaptureFixture[str]) -> None:
    command.run()
    command.says(REQUEUED)
    command.epilog()
    capsys.readouterr()
    assert main(["spills"]) == 0
    assert capsys.readouterr().out.endswith(f"ago: {command.spill}\n")
    assert main(["spills", "--clean"]) == 0
    assert capsys.readouterr().out == f"job 12 of uid {USER}: kept for the job's next run\n"
    command.says(CANCELLED)
    assert main(["spills", "--clean"]) == 0
    assert capsys.readouterr().out == f"job 12 of uid {USER}: removed\n"
    assert list(command.home.iterdir()) == []


def test_a_user_cleans_a_directory_by_hand(command: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine, running = tmp_path / ".mpsr-12", tmp_path / "13"
    fill(mine, "12.0.0.state", uid=os.geteuid())
    fill(running, "13.0.0.state", uid=os.geteuid())
    fill(tmp_path / ".mpsr-14", "14.0.0.state", uid=OTHER)
    squeue_kit.says(command.base, {12: CANCELLED, 13: RUNNING})
    assert main(["spills", "--older-than", "1h", "--clean", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
    assert main(["spills", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{mine}: its job is over",
        f"{running}: kept for the job's next run",
    ]
    assert main(["spills", "--clean", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{mine}: removed", f"{running}: kept for the job's next run"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mpsr-14", "13"]
