"""The scontrol adapter: what it asks of Slurm, whatever texts a job has; and a scontrol that is missing or slow."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.adapters.slurm import requeue_sequence, scontrol
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.adapters.slurm.slurm_program import beside
from resilience.model.errors import SlurmAway, SlurmError, UnknownJob
from resilience.model.ids import JobId, NodeName
from resilience.ports import Done, Refused
from tests.unit.slurm_clock import stopped
from tests.unit.squeue_kit import Cluster

JOB = JobId(2)
FREE = ("Name", "WorkDir", "StdOut", "UserName", "Reason", "admin_comment")
RECORD = "x\n2                       1                       5                       N/A\nArrayJobId=9 ArrayTaskId=0\n"
"""A text that looks like records, of squeue and of scontrol."""
TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200),
    st.binary(max_size=200).map(lambda text: text.replace(b"\0", b"")),
    st.integers(0, 9000).map(lambda count: RECORD * (count // 80) + "\n" * (count % 80)),
)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(scontrol, "run", made.run)
    stopped(monkeypatch)
    return made


@pytest.fixture
def slurm() -> Scontrol:
    return Scontrol(program="/opt/slurm/bin/scontrol", timeout=0.5, requeue_timeout=1)


def all_that_is_asked(jobs: dict[int, dict[str, str | bytes]]) -> list[tuple[str, ...]]:
    """What a requeue and a comment of job 2 ask for; the comment's words, which keep others', left out."""
    cluster = Cluster(jobs=jobs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scontrol, "run", cluster.run)
        stopped(patch)
        slurm = Scontrol(program="scontrol", timeout=0.5, requeue_timeout=0.3)
        slurm.job(JOB)
        slurm.requeue(JOB, comment="mpsr: x", exclude=NodeName("n0"))
        slurm.comment(JOB, "mpsr: x")
    return [tuple(word.partition("AdminComment=")[0] for word in words) for words in cluster.asked]


@given(
    texts=st.fixed_dictionaries({}, optional=dict.fromkeys(FREE, TEXTS)), state=st.sampled_from(["PENDING", "RUNNING"])
)
def test_a_jobs_texts_never_change_what_is_asked_of_slurm(texts: dict[str, str | bytes], state: str) -> None:
    kinds: list[dict[str, str | bytes]] = [
        {},
        {"ArrayJobID": "1", "ArrayTaskID": "7"},
        {"HetJobID": "1", "HetJobOffset": "1"},
    ]
    for kind in kinds:
        plain: dict[str, str | bytes] = {"State": state, **kind}
        others: dict[int, dict[str, str | bytes]] = {1: {"State": state, **kind}, 2: plain, 3: {}}
        asked = all_that_is_asked({**others, 1: {**texts, **others[1]}, 2: {**texts, **plain}})
        assert asked == all_that_is_asked(others)


@pytest.mark.parametrize("text", [b"x" * 9000, b"\xff\xfe\n\n", RECORD.encode(), b""])
@pytest.mark.parametrize("field", [*FREE, "ExcNodeList"])
def test_a_job_is_seen_as_it_is_whatever_its_texts(field: str, text: bytes, cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {1: {field: text}, 2: {field: text, "State": "PENDING", "PriorityLong": "0", "RestartCnt": "3"}}
    info, seen = slurm.job(JOB), slurm.snapshot(JOB)
    assert (info.state, info.batch, info.requeue, info.restarts) == ("PENDING", True, True, 3)
    assert (seen.state, seen.held, seen.restarts) == ("PENDING", True, 3)


def test_paths_with_anything_in_them_are_whole(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: {"WorkDir": "/home/alice/a\nb  c", "StdOut": "out of %x-%4j\n.%%d", "Name": "x y"}}
    assert slurm.job(JOB).workdir == "/home/alice/a\nb  c"
    assert slurm.job(JOB).stdout == "/home/alice/a\nb  c/out of x y-0002\n.%d"


def test_a_path_that_may_be_cut_is_none(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: {"WorkDir": "/" + "x" * 9000, "StdOut": "/" + "x" * 9000}}
    assert (slurm.job(JOB).workdir, slurm.job(JOB).stdout) == ("", "")


@pytest.mark.parametrize(
    ("given", "asked", "started"),
    [
        ({}, "2", "2"),
        ({"ArrayJobID": "1", "ArrayTaskID": "7"}, "1_7", "1_7"),
        ({"HetJobID": "1", "HetJobOffset": "1"}, "1", "1"),
        ({"HetJobID": "2", "HetJobOffset": "0"}, "2", "2"),
    ],
)
def test_a_job_is_named_as_slurm_names_it(
    given: dict[str, str | bytes], asked: str, started: str, cluster: Cluster, slurm: Scontrol
) -> None:
    cluster.jobs = {2: given}
    slurm.ask_requeue(JOB)
    slurm.ask_update(JOB, start_now=True)
    slurm.ask_update(JOB, comment="x")
    own = "+".join((str(given["HetJobID"]), str(given["HetJobOffset"]))) if "HetJobID" in given else asked
    assert cluster.asked == [
        ("requeue", asked),
        ("update", f"JobId={started}", "StartTime=now"),
        ("update", f"JobId={own}", "AdminComment=x"),
    ]


@pytest.mark.parametrize(("other", "state"), [("COMPLETING", "COMPLETING"), ("PENDING", "PENDING")])
def test_a_component_waits_for_the_others(other: str, state: str, cluster: Cluster, slurm: Scontrol) -> None:
    """A start asked for while another of them completes is forgotten (24.11, seen)."""
    mine: dict[str, str | bytes] = {"HetJobID": "1", "HetJobOffset": "1", "State": "PENDING"}
    stranger: dict[str, str | bytes] = {"State": "COMPLETING", "Name": "1" + " " * 23 + "1"}
    cluster.jobs = {1: {"HetJobID": "1", "HetJobOffset": "0", "State": other}, 2: mine, 3: stranger}
    assert slurm.snapshot(JOB).state == state


def test_a_whole_array_is_not_asked_for(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: {"ArrayTaskID": "3-9%2"}}
    with pytest.raises(SlurmError, match="is a whole array, not a task of it: 2_3-9%2"):
        slurm.ask_requeue(JOB)
    assert cluster.asked == []


@pytest.mark.parametrize(
    "given", [{"RestartCnt": "1x"}, {"BatchFlag": "\u0663"}, {"JobID": "two"}, {"HetJobID": "x"}, {"Requeue": ""}]
)
def test_a_form_that_we_do_not_know_is_said(given: dict[str, str | bytes], cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: given}
    with pytest.raises(SlurmError, match="job 2: is shown in a form that we do not know"):
        slurm.job(JOB)


def test_a_job_that_is_shown_twice_is_not_known(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: {}, 3: {"JobID": "2"}}
    with pytest.raises(SlurmError, match="is shown more than once: 2 times"):
        slurm.snapshot(JOB)


def test_an_unknown_job_is_an_error_of_its_own(cluster: Cluster, slurm: Scontrol) -> None:
    unknown: tuple[dict[int, dict[str, str | bytes]], ...] = ({}, {3: {}})
    for jobs in unknown:
        cluster.jobs = jobs
        with pytest.raises(UnknownJob, match="job 2: is unknown to Slurm"):
            slurm.job(JOB)
    assert slurm.over(JOB, 0)


@pytest.mark.parametrize(
    ("given", "over"),
    [
        ({"State": "COMPLETED"}, True),
        ({"State": "PENDING"}, False),
        ({"State": "COMPLETING", "RestartCnt": "1", "EndTime": "2026-11-30T00:00:00"}, False),
        ({"State": "COMPLETING", "EndTime": "NONE"}, False),
        ({"State": "COMPLETING", "EndTime": "N/A"}, False),
        ({"State": "COMPLETING", "EndTime": "2026-11-30T00:00:00"}, True),
        ({"State": "COMPLETING", "EndTime": "2026-11-30T00:00:00", "exit_code": "19200"}, False),
        ({"State": "COMPLETING", "EndTime": "2026-11-30T00:00:00", "exit_code": "75:0"}, False),
        ({"State": "COMPLETING", "EndTime": "2026-11-30T00:00:00", "exit_code": "2304"}, True),
    ],
)
def test_a_job_is_over_when_no_run_is_to_come(
    given: dict[str, str | bytes], over: bool, cluster: Cluster, slurm: Scontrol
) -> None:
    cluster.config = "RequeueExit             = 75,80-82\nRequeueExitHold         = (null)\n"
    cluster.jobs = {2: given}
    assert slurm.over(JOB, 0) is over


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("JobRequeue              = 1\n", "submitted with --no-requeue"),
        ("JobRequeue              = 0\n", "JobRequeue=0 in slurm.conf, and the job was not submitted with --requeue"),
    ],
)
def test_a_job_without_requeue_says_whose_word_that_is(
    config: str, why: str, cluster: Cluster, slurm: Scontrol
) -> None:
    cluster.config, cluster.jobs = config, {2: {"Requeue": "0"}}
    assert (slurm.job(JOB).requeue, slurm.job(JOB).no_requeue) == (False, why)
    cluster.jobs = {2: {}}
    assert (slurm.job(JOB).requeue, slurm.job(JOB).no_requeue) == (True, "")


def test_nodes_that_cannot_be_read_are_not_written_back(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: {"State": "PENDING", "ExcNodeList": "n1\nJobId=9"}}
    answer = slurm.requeue(JOB, comment="mpsr: x", exclude=NodeName("n0"))
    assert isinstance(answer, Done)
    assert "node not excluded: job 2: excludes nodes in a form that we do not know" in answer.detail
    assert [word for words in cluster.asked for word in words if "Node" in word] == []


def test_what_a_site_wrote_stays(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: {"admin_comment": "billed to\nX | mpsr: old (incident a-1); checked by Y"}}
    assert slurm.comment(JOB, "mpsr: new (incident b-2)") == Done()
    kept = "AdminComment=billed to\nX | mpsr: new (incident b-2); checked by Y"
    assert cluster.asked == [("update", "JobId=2", kept)]


def test_a_text_too_long_to_be_kept_is_not_replaced(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: {"admin_comment": "x" * 20000}}
    with pytest.raises(SlurmError, match="has a longer admin_comment than can be kept"):
        slurm.comment(JOB, "mpsr: new (incident b-2)")
    assert cluster.asked == []


def test_nodes_are_added_once() -> None:
    assert requeue_sequence.merged("", NodeName("n0")) == "n0"
    assert requeue_sequence.merged("n1,n2", NodeName("n0")) == "n1,n2,n0"
    assert requeue_sequence.merged("n1,n0", NodeName("n0")) == ""
    assert requeue_sequence.merged("n1", None) == ""


def test_squeue_lies_beside_scontrol() -> None:
    assert beside("scontrol", "squeue") == "squeue"
    assert beside("/opt/scontrol/bin/scontrol", "squeue") == "/opt/scontrol/bin/squeue"


# ------------------------------------------------------------------ programs that fail


def program(tmp_path: Path, body: str, shown: str = "cat row") -> Scontrol:
    """A scontrol that does `body`, and a squeue that shows `row`."""
    for name, text in (("scontrol", body), ("squeue", f"cd {tmp_path}; {shown}")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return Scontrol(program=str(tmp_path / "scontrol"), timeout=0.5, requeue_timeout=1)


def test_a_missing_squeue_names_the_setting() -> None:
    with pytest.raises(SlurmError) as caught:
        Scontrol(program="/nonexistent/scontrol", timeout=1, requeue_timeout=1).job(JOB)
    assert caught.value.lines() == (
        "mpsr: /nonexistent/squeue: cannot be run: No such file or directory\n"
        "  set paths.scontrol in mpsr.yaml; squeue lies beside it"
    )


def test_a_program_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(SlurmAway, match=r"squeue: gave no answer within 0\.5 s: --noheader"):
        program(tmp_path, "true", "exec sleep 60").job(JOB)


AWAY = "slurm_update error: Unable to contact slurm controller (connect failure)"


def test_an_unreachable_controller_is_an_error_and_a_refusal_is_not(
    tmp_path: Path, cluster: Cluster, slurm: Scontrol
) -> None:
    cluster.jobs, cluster.refuse = {2: {}}, "Bad day"
    assert slurm.comment(JOB, "x") == Refused(reason="Bad day")
    assert len(cluster.asked) == 1, "a refusal is final"


def test_an_unreachable_controller_is_away(tmp_path: Path) -> None:
    with pytest.raises(SlurmAway, match="slurmctld: cannot be asked: Unable to contact"):
        program(tmp_path, f"echo '{AWAY}' >&2; exit 1").drain(NodeName("n0"), "x")
    with pytest.raises(SlurmAway, match="slurmctld: cannot be asked: Unable to contact"):
        program(tmp_path, "true", f"echo '{AWAY}' >&2; exit 1").job(JOB)


def test_a_comment_that_nobody_takes_is_asked_again(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs, tries = {2: {}}, []

    def update(job: JobId, *, comment: str) -> Done:
        tries.append(comment)
        if len(tries) < 3:
            raise SlurmAway("slurmctld", "cannot be asked")
        return Done()

    slurm.ask_update = update  # type: ignore[method-assign,assignment]
    slurm._timeout = 30
    assert slurm.comment(JOB, "x") == Done()
    assert len(tries) == 3


def test_a_comment_is_not_asked_for_for_ever(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs, tries = {2: {}}, []

    def update(job: JobId, *, comment: str) -> Done:
        tries.append(comment)
        raise SlurmAway("slurmctld", "cannot be asked")

    slurm.ask_update = update  # type: ignore[method-assign,assignment]
    with pytest.raises(SlurmAway):
        slurm.comment(JOB, "x")
    assert 1 < len(tries) < 8  # of 0.5 s with pauses of 0.1, 0.2, 0.4 s
