"""scontrol's texts, recorded from Slurm 22.05.8, and a scontrol that is missing, slow or cannot reach anybody."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.adapters.slurm.requeue_sequence import merged, one_line
from resilience.adapters.slurm.scontrol import Scontrol, held_gpus, parse_record
from resilience.model.errors import SlurmAway, SlurmError
from resilience.model.ids import JobId, NodeName
from resilience.ports import Done, Refused

RECORD = """\
JobId=2 ArrayJobId=2 ArrayTaskId=1 JobName=a b=c JobState=FAILED Restarts=9
   UserId=alice(64101) GroupId=alice(64101) MCS_label=N/A
   Priority=0 Nice=0 Account=(null) QOS=(null)
   JobState=PENDING Reason=BadConstraints Dependency=(null)
   Requeue=1 Restarts=1 BatchFlag=1 Reboot=0 ExitCode=0:0
   RunTime=00:00:00 TimeLimit=UNLIMITED TimeMin=N/A
   Partition=main AllocNode:Sid=localhost:0
   ReqNodeList=(null) ExcNodeList=n1,n0
   NodeList=
   Command=(null)
   WorkDir=/home/alice/my runs
   AdminComment=mpsr: JobState=RUNNING\x20
   StdErr=/home/alice/slurm-2.out
   StdIn=/dev/null
   StdOut=/home/alice/out of job
   Power=
"""


def program(tmp_path: Path, body: str) -> Scontrol:
    file = tmp_path / "scontrol"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return Scontrol(program=str(file), timeout=0.5, requeue_timeout=1)


def test_texts_of_the_user_do_not_pass_for_fields() -> None:
    fields = parse_record(RECORD)
    assert (fields["JobName"], fields["JobState"], fields["Restarts"]) == (
        "a b=c JobState=FAILED Restarts=9",
        "PENDING",
        "1",
    )
    assert (fields["WorkDir"], fields["StdOut"]) == ("/home/alice/my runs", "/home/alice/out of job")
    assert fields["AdminComment"] == "mpsr: JobState=RUNNING"


def test_a_record_becomes_a_job(tmp_path: Path) -> None:
    (tmp_path / "record").write_text(RECORD)
    snapshot = program(tmp_path, f"cat {tmp_path}/record").snapshot(JobId(2))
    assert (snapshot.held, snapshot.reason) == (True, "BadConstraints")
    assert (snapshot.info.state, snapshot.info.restarts, snapshot.info.excluded) == ("PENDING", 1, "n1,n0")


def test_of_an_array_the_right_record_is_taken(tmp_path: Path) -> None:
    other = RECORD.replace("JobId=2 ", "JobId=3 ").replace("Restarts=1 ", "Restarts=4 ")
    (tmp_path / "records").write_text(f"{other}\n{RECORD}\n")
    slurm = program(tmp_path, f"cat {tmp_path}/records")
    assert (slurm.job(JobId(2)).restarts, slurm.job(JobId(3)).restarts) == (1, 4)
    with pytest.raises(SlurmError, match="is unknown"):
        slurm.job(JobId(4))


@pytest.mark.parametrize(
    ("gres", "held"),
    [
        ("gpu:sandbox:2(IDX:0-1)", ("0", "1")),  # all four forms as 22.05 and 24.11 were seen to print them
        ("shard:2(IDX:1)", ("1",)),
        ("shard:2(0/8,2/8)", ("1",)),
        ("mps:120(100/100,20/100)", ("0", "1")),
        ("gpu:a:1(IDX:2),shard:a:2(0/8,0/8,2/8)", ("2",)),
        ("shard:2", ()),
        ("", ()),
    ],
)
def test_the_gpus_of_a_job(gres: str, held: tuple[str, ...]) -> None:
    assert held_gpus(gres) == held


@given(st.text(max_size=300))
def test_any_text_is_parsed_without_an_exception(text: str) -> None:
    assert all(isinstance(value, str) for value in parse_record(text).values())


def test_what_the_user_typed_is_no_field() -> None:
    """Slurm 26.05 shows the command line."""
    fields = parse_record("JobId=1 JobName=a\n   Command=(null)\n   SubmitLine=sbatch -J ArrayJobId=9 x\n   WorkDir=/")
    assert "ArrayJobId" not in fields
    assert (fields["SubmitLine"], fields["WorkDir"]) == ("sbatch -J ArrayJobId=9 x", "/")


def test_a_form_that_we_do_not_know_is_said(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="job 7: is shown in a form that we do not know: 'JobState'"):
        program(tmp_path, "echo JobId=7 JobName=x").job(JobId(7))


def test_a_missing_scontrol_names_the_setting() -> None:
    with pytest.raises(SlurmError) as caught:
        Scontrol(program="/nonexistent/scontrol", timeout=1, requeue_timeout=1).job(JobId(1))
    assert caught.value.lines() == (
        "mpsr: /nonexistent/scontrol: cannot be run: No such file or directory\n  set paths.scontrol in mpsr.yaml"
    )


def test_a_scontrol_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match=r"scontrol: gave no answer within 0\.5 s: show job 1"):
        program(tmp_path, "exec sleep 60").job(JobId(1))


def test_an_unreachable_controller_is_an_error_and_a_refusal_is_not(tmp_path: Path) -> None:
    said = "slurm_update error: Unable to contact slurm controller (connect failure)"
    with pytest.raises(SlurmError, match="slurmctld: cannot be asked: Unable to contact"):
        program(tmp_path, f"echo '{said}' >&2; exit 1").drain(NodeName("n0"), "x")
    (tmp_path / "record").write_text(RECORD)
    body = f'case "$1" in show) cat {tmp_path}/record ;; *) echo "slurm_update error: Bad day" >&2; exit 1 ;; esac'
    assert program(tmp_path, body).comment(JobId(2), "x") == Refused(reason="Bad day")


AWAY = "slurm_update error: Unable to contact slurm controller (connect failure)"


def test_a_comment_that_nobody_takes_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "record").write_text(RECORD)
    count = f"echo x >>{tmp_path}/tries; [ $(wc -l <{tmp_path}/tries) -ge 3 ] || {{ echo '{AWAY}' >&2; exit 1; }}"
    slurm = program(tmp_path, f'case "$1" in show) cat {tmp_path}/record ;; *) {count} ;; esac')
    slurm._timeout = 30
    assert slurm.comment(JobId(2), "x") == Done()
    assert (tmp_path / "tries").read_text().count("x") == 3


def test_a_comment_is_not_asked_for_for_ever(tmp_path: Path) -> None:
    (tmp_path / "record").write_text(RECORD)
    tries = f"echo x >>{tmp_path}/tries; echo '{AWAY}' >&2; exit 1"
    body = f'case "$1" in show) cat {tmp_path}/record ;; *) {tries} ;; esac'
    with pytest.raises(SlurmAway):
        program(tmp_path, body).comment(JobId(2), "x")
    assert 1 < (tmp_path / "tries").read_text().count("x") < 8  # of 0.5 s with pauses of 0.1, 0.2, 0.4 s


def test_a_comment_that_slurm_will_not_take_is_asked_for_once(tmp_path: Path) -> None:
    (tmp_path / "record").write_text(RECORD)
    said = "Job has already finished for job 2"
    tries = f"echo x >>{tmp_path}/tries; echo '{said}' >&2; exit 1"
    body = f'case "$1" in show) cat {tmp_path}/record ;; *) {tries} ;; esac'
    assert program(tmp_path, body).comment(JobId(2), "x") == Refused(reason=said)
    assert (tmp_path / "tries").read_text().count("x") == 1


def test_a_task_of_an_array_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "record").write_text(RECORD)
    body = f'case "$1" in show) cat {tmp_path}/record ;; *) echo "$@" >>{tmp_path}/asked ;; esac'
    slurm = program(tmp_path, body)
    slurm.ask_requeue(JobId(2))
    slurm.comment(JobId(2), "two  words\nand a line")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["requeue 2_1", "update JobId=2_1 AdminComment=two words and a line"]


def test_nodes_are_added_once() -> None:
    assert merged("", NodeName("n0")) == "n0"
    assert merged("n1,n2", NodeName("n0")) == "n1,n2,n0"
    assert merged("n1,n0", NodeName("n0")) == ""
    assert merged("n1", None) == ""


@given(st.text(max_size=3000))
def test_a_comment_is_one_short_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text)) <= 1024
