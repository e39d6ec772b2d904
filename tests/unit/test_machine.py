"""The machine through whole incidents, one story a test."""

from dataclasses import replace

import pytest

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color, IncidentId, JobId
from resilience.model.lease import Isolation
from resilience.model.observation import Client, Source, What
from resilience.model.options import OnCulprit, Rung
from resilience.model.settings import Mps, Recovery
from resilience.model.world import Health, Sight
from tests.unit.machine_kit import DOMAIN, GPU, Node, lease, pid, ref, server


def _incident(node: Node) -> IncidentId:
    return list(node.state.incidents)[-1]


def test_hello_is_answered_with_a_server_and_a_spare() -> None:
    node = Node()
    node.task(1)
    (place,) = node.of(fx.Place, node.log)
    assert (place.server, place.standby) == (server("a"), server("b"))
    assert node.of(fx.LookUpJob, node.log) == [fx.LookUpJob(job=JobId(1))]
    assert [one.server for one in node.of(fx.Watch, node.log)] == [server("a"), server("b")]


def test_a_failure_is_not_answered_to_the_task_that_comes_after() -> None:
    """A supervisor whose task failed before it was said to have started has gone; its successor hears nothing of that."""
    node = Node()
    hello = ev.Hello(
        ref=ref(1), lease=lease(1), server=server("a"), mpi=False, resumed=False, retries=0, active=0, session=False
    )
    node.do(hello)
    node.do(ev.Exited(ref=ref(1), role=ev.Role.ACTIVE, pid=0, status=9))
    node.do(ev.Gone(ref=ref(1)))
    node.do(hello)
    assert node.verdicts(node.wait(60)) == {}


@pytest.mark.parametrize(
    ("began", "slot", "turns", "words"),
    [
        (Isolation.DOMAINS, 0, (), "isolation: domains"),
        (Isolation.DOMAINS, 0, (True,), "isolation: guard"),
        (Isolation.GUARD, 0, (), "isolation: guard"),
        (Isolation.GUARD, 0, (False,), "isolation: domains"),
        (Isolation.GUARD, 3, (True, False), "isolation: SM partitions"),
        (Isolation.SM, 3, (True,), "isolation: guard, SM partitions"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_log_names_the_isolation_at_the_fault(
    began: Isolation, slot: int, turns: tuple[bool, ...], words: str, first: bool
) -> None:
    """Whether the guard is turned before the job's first task or after it."""
    node = Node()
    for on in turns if first else ():
        node.do(ev.GuardTurned(on=on))
    who = node.task(1, isolation=began, slot=slot)
    for on in () if first else turns:
        node.do(ev.GuardTurned(on=on))
    node.culprit(who)
    node.wait(1)
    lines = [effect.text for effect in node.log if isinstance(effect, fx.JobLine)]
    assert any(f"{words}" in line.split(";")[-1] for line in lines), lines


def test_bystanders_are_promoted_in_the_turn_that_names_the_culprit() -> None:
    node = Node()
    guilty, other, third = node.task(1), node.task(2), node.task(3)
    node.culprit(guilty)
    told = node.told()
    assert told[2] == told[3] == ("promote", "bystander", "b")
    assert 1 not in told, "the culprit waits for the fault's class"
    assert node.of(fx.SetActive) == [fx.SetActive(server=server("b"))]
    node.xid(31, guilty)
    assert node.told() == {1: ("fail", "culprit", "")}
    assert "illegal address, Xid 31" in node.verdicts()[guilty].reason
    node.do(ev.Stepped(ref=other, incident=_incident(node), seq=17, ms=1.5))
    node.do(ev.Stepped(ref=third, incident=_incident(node), seq=17, ms=1.5))
    comments = {one.job: one.text for one in node.of(fx.AskComment, node.log)}
    assert comments[JobId(2)].startswith("mpsr: 1 fault by job 1 step 0 task 0 (illegal address, Xid 31) on GPU-1d5f")
    assert "recovered on standby in 0.0 ms" in comments[JobId(2)]
    assert comments[JobId(1)].startswith("mpsr: caused a fault in step 0 task 0 (illegal address, Xid 31)")


def test_a_kind_of_fault_that_is_known_late_is_told_late() -> None:
    """The server's log, which names the culprit, may come before the Xid, which says what it was."""
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.xid(31, guilty)
    for job in (guilty.job, other.job):
        lines = [one.text for one in node.of(fx.JobLine, node.log) if one.job == job]
        assert lines[0].startswith("GPU fault on ")
        assert "Xid" not in lines[0]
        assert [line.partition(" was: ")[2] for line in lines if " was: " in line] == ["illegal address, Xid 31"]


def test_a_kind_of_fault_that_is_known_at_once_is_told_once() -> None:
    node = Node()
    guilty = node.task(1)
    node.xid(31, guilty)
    node.culprit(guilty)
    lines = [one.text for one in node.of(fx.JobLine, node.log)]
    assert "illegal address, Xid 31" in lines[0]
    assert not [line for line in lines if " was: " in line]


def test_steps_of_a_job_are_told_apart() -> None:
    """Two steps of one job have a task 0 each: log, journal and account say which one did it."""
    node = Node()
    solver = node.task(1)
    guilty = node.task(1, step=2)
    script = node.task(1, step=0xFFFFFFFB, session=False)
    node.culprit(guilty)
    node.xid(31, guilty)
    lines = [one.text for one in node.of(fx.JobLine, node.log)]
    assert "by job 1 step 2 task 0 certain" in lines[0]
    assert lines[0].endswith(
        "; step 0 task 0 bystander, step 2 task 0 culprit, step batch task 0 bystander; isolation: domains"
    )
    assert "step 0 task 0: handed to its standby on server b" in lines
    assert any(line.startswith("step 2 task 0: failed: this task caused") for line in lines)
    assert any(line.startswith("step batch task 0: relaunched") for line in lines)
    assert node.journal("incident.attributed")[0]["culprit"] == "job 1 step 2 task 0"
    assert {solver, guilty, script} == set(node.verdicts(node.log))


def test_the_account_of_a_failed_task_does_not_wait_for_its_mates() -> None:
    """The job may end with its first failed task, and Slurm takes no account of a job that ends."""
    node = Node()
    guilty, mate = node.task(1), node.task(1, 1)
    node.culprit(guilty)
    node.xid(31, guilty)
    (early,) = node.of(fx.AskComment, node.log)
    assert early.text.startswith("mpsr: caused a fault in step 0 task 0 (illegal address, Xid 31)")
    node.do(ev.Stepped(ref=mate, incident=_incident(node), seq=17, ms=1.5))
    assert node.of(fx.AskComment, node.log) == [early], "what stands there is not asked for again"


@pytest.mark.parametrize(("said", "ms"), [(0.007, 7.0), (0.0, 12.0), (-3.0, 12.0), (0.5, 12.0), (1e9, 12.0)])
def test_the_first_step_is_when_the_program_says_unless_that_cannot_be(said: float, ms: float) -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    begun = node.now
    node.wait(0.012)
    at = begun + said if said > 0 else said
    node.do(ev.Stepped(ref=other, incident=_incident(node), seq=17, ms=1.5, at=at))
    assert [line["ms"] for line in node.journal("recovered")] == [pytest.approx(ms)]


def test_the_culprit_is_told_after_the_wait_even_without_an_xid() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2)
    node.culprit(guilty)
    assert node.told(node.wait(0.099)) == {}
    assert node.told(node.wait(0.002)) == {1: ("fail", "culprit", "")}


def test_a_name_from_the_kernel_log_does_not_hide_the_certain_one_from_the_servers_log() -> None:
    node = Node()
    guilty, _ = node.task(1), node.task(2)
    node.xid(31, guilty)
    assert node.told() == {}
    node.culprit(guilty)
    assert node.told() == {1: ("fail", "culprit", ""), 2: ("promote", "bystander", "b")}


def test_a_memory_error_makes_the_named_process_a_victim() -> None:
    node = Node()
    named = node.task(1)
    node.task(2)
    node.culprit(named)
    node.xid(94, named)
    assert node.told() == {1: ("promote", "bystander", "b")}


def test_colours_swap_and_standbys_come_back_after_the_rebuild() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.Stepped(ref=other, incident=_incident(node), seq=3, ms=1.0))
    node.do(ev.Gone(ref=guilty))
    assert node.state.incidents, "open until the server is back"
    effects = node.rebuilt("a")
    assert node.of(fx.StartStandby, effects) == [fx.StartStandby(ref=other, server=server("a"))]
    assert not node.state.incidents
    assert node.journal("server.rebuilt")
    node.standby(other, "a", 2)
    late = node.task(3)
    placed = [one for one in node.of(fx.Place, node.log) if one.ref == late]
    assert placed[0].server == server("b")
    node.culprit(late, "b")
    assert node.told()[2] == ("promote", "bystander", "a")


def test_a_server_that_does_not_recover_is_replaced() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.do(ev.Stepped(ref=other, incident=_incident(node), seq=3, ms=1.0))
    node.sight("a", Sight.FAULT)
    effects = node.wait(10.1)
    assert [(one.server, one.anew) for one in node.of(fx.Open, effects)] == [(server("a"), True)]
    node.do(ev.ServerOpened(server=server("a"), ok=True, detail=""))
    assert node.of(fx.StartStandby) == [fx.StartStandby(ref=other, server=server("a"))]


def test_an_answer_from_before_the_fault_proves_nothing() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2)
    asked = node.now
    node.now += 0.001
    node.culprit(guilty)
    node.do(ev.ServerSeen(server=server("a"), sight=Sight.FAULT, asked=node.now))
    node.do(ev.ServerSeen(server=server("a"), sight=Sight.ACTIVE, asked=asked))
    assert node.state.pairs[DOMAIN, GPU].health(Color("a")) is Health.FAULTED


def test_without_a_standby_sessions_are_restored_and_others_relaunched_on_the_spare() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2, ready=False)
    node.task(3, session=False)
    node.culprit(guilty)
    assert node.told() == {2: ("restore", "bystander", "b"), 3: ("relaunch", "bystander", "b")}


def test_a_relaunched_program_has_recovered_when_it_runs() -> None:
    node = Node()
    guilty, plain = node.task(1), node.task(2, session=False)
    node.culprit(guilty)
    node.do(ev.Started(ref=plain, role=ev.Role.ACTIVE, pid=pid(plain) + 5, color=Color("b")))
    assert [row["task"] for row in node.journal("recovered")] == ["2.0.0"]


def test_with_one_colour_tasks_wait_for_the_same_server() -> None:
    node = Node()
    guilty = node.task(1, colors=("a",))
    node.task(2, colors=("a",))
    node.culprit(guilty)
    node.xid(31, guilty)
    assert 2 not in node.told()
    node.do(ev.Gone(ref=guilty))
    assert node.told(node.rebuilt("a")) == {2: ("restore", "bystander", "a")}


def test_with_one_colour_a_waiting_program_has_its_dead_server_replaced_at_once() -> None:
    node = Node()
    guilty, other = node.task(1, colors=("a",)), node.task(2, colors=("a",))
    node.culprit(guilty)
    assert not node.of(fx.Open)
    effects = node.cuda(other, 700)
    assert [(one.server, one.anew) for one in node.of(fx.Open, effects)] == [(server("a"), True)]
    node.do(ev.ServerOpened(server=server("a"), ok=True, detail=""))
    assert node.told() == {2: ("restore", "bystander", "a")}


def test_rungs_go_down_and_end_in_a_requeue() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    name = _incident(node)
    for expected in ("restore", "relaunch", "requeue"):
        node.do(ev.RungFailed(ref=other, incident=name, rung="?", reason="tried and failed"))
        assert node.told()[2][0] == expected
    assert not node.of(fx.AskRequeue)
    node.do(ev.Spilled(ref=other, seq=4))
    (asked,) = node.of(fx.AskRequeue)
    assert (asked.job, asked.exclude) == (JobId(2), False)
    assert "by job 1 step 0 task 0" in asked.comment
    node.do(ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(2), ok=True, detail=""))
    assert [row["ok"] for row in node.journal("slurm.outcome")] == [True]
    assert node.of(fx.Verdict) == []


def test_a_promotion_without_an_answer_times_out_from_when_the_old_process_noticed() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    assert 2 not in node.told(node.wait(100)), "still computing on the CPU: nothing is wrong"
    node.cuda(other, 700)
    assert node.told(node.wait(29)) == {}
    assert node.told(node.wait(2)) == {2: ("restore", "bystander", "b")}


def test_retries_used_up_mean_requeue() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2, retries=3)
    node.culprit(guilty)
    assert node.told()[2][0] == "requeue"


def test_a_job_that_is_no_batch_job_fails_with_the_reason() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3, batch=False)
    node.culprit(guilty)
    assert node.told()[2][0] == "fail"
    assert "not a batch job" in node.verdicts()[other].reason
    assert "3 retries used" in node.verdicts()[other].reason


def test_mpi_tasks_are_requeued_with_their_whole_job() -> None:
    node = Node()
    guilty = node.task(1)
    mates = [node.task(2, n, mpi=True) for n in range(3)]
    node.culprit(guilty)
    assert {who: one.action.value for who, one in node.verdicts().items()} == dict.fromkeys(mates, "requeue")
    for mate in mates[:2]:
        node.do(ev.Spilled(ref=mate, seq=-1))
        assert not node.of(fx.AskRequeue)
    effects = node.wait(30.1)
    assert len(node.of(fx.AskRequeue, effects)) == 1


@pytest.mark.parametrize("wish", OnCulprit)
def test_an_mpi_job_whose_own_task_did_it_comes_back_only_if_it_wants_to(wish: OnCulprit) -> None:
    """Requeued for its innocent tasks' sake it would make the same fault again, and again."""
    node = Node()
    guilty = node.task(1, 0, mpi=True, on_culprit=wish)
    mate = node.task(1, 1, mpi=True, on_culprit=wish)
    node.culprit(guilty)
    node.xid(31, guilty)
    expected = "requeue" if wish is OnCulprit.REQUEUE else "fail"
    told = {who: one.action.value for who, one in node.verdicts(node.log).items()}
    assert told == {guilty: expected, mate: expected}
    if expected == "fail":
        assert "requeue: step 0 task 0 of this job caused the fault" in node.verdicts(node.log)[mate].reason


def test_a_job_that_slurm_ends_before_it_answers_counts_as_requeued() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3)
    node.culprit(guilty)
    node.do(ev.Spilled(ref=other, seq=-1))
    node.do(ev.Gone(ref=other))
    lines = [one.text for one in node.of(fx.JobLine) if one.job == 2]
    assert lines
    assert lines[-1].endswith(": requeued")
    assert not [one for one in node.of(fx.AskComment, node.log) if one.job == 2], "the requeue's own comment stays"


def test_a_second_fault_takes_a_task_over_and_accounts_for_both() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.see(What.SERVER_GONE, source=Source.CONTROL_LOG, color="b")
    assert not [one for one in node.of(fx.AskComment, node.log) if one.job == 2]
    node.rebuilt("a")
    assert node.told()[2][0] == "restore"
    node.do(ev.Stepped(ref=other, incident=_incident(node), seq=1, ms=1.0))
    (comment,) = [one.text for one in node.of(fx.AskComment, node.log) if one.job == 2]
    assert comment.startswith("mpsr: 2 faults, last")


def test_a_refused_requeue_ends_in_the_reason() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3)
    node.culprit(guilty)
    node.do(ev.Spilled(ref=other, seq=-1))
    node.do(ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(2), ok=False, detail="Job is no longer known"))
    assert node.told() == {2: ("fail", "bystander", "")}
    assert "Job is no longer known" in node.verdicts()[other].reason


def test_the_breaker_limits_requeues_per_hour() -> None:
    node = Node(Recovery(max_requeues_per_hour=1))
    guilty = node.task(1)
    first, second = node.task(2, retries=3), node.task(3, retries=3)
    node.do(ev.Gone(ref=second))
    node.culprit(guilty)
    node.do(ev.Spilled(ref=first, seq=-1))
    assert node.of(fx.AskRequeue)
    node.do(ev.Gone(ref=guilty))
    node.do(ev.Gone(ref=first))
    again, victim = node.task(4), node.task(5, retries=3)
    node.culprit(again)
    assert "breaker" in node.verdicts()[victim].reason


def test_a_culprit_in_quarantine_has_a_server_of_its_own() -> None:
    node = Node()
    guilty = node.task(1, on_culprit=OnCulprit.QUARANTINE)
    node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    assert [(one.server, one.anew) for one in node.of(fx.Open)] == [(server("q1"), False)]
    node.do(ev.ServerOpened(server=server("q1"), ok=True, detail=""))
    assert node.told() == {1: ("quarantine", "culprit", "q1")}
    node.do(ev.Gone(ref=guilty))
    assert node.of(fx.Close) == [fx.Close(server=server("q1"))]


def test_a_quarantine_that_cannot_be_opened_ends_in_fail() -> None:
    node = Node()
    guilty = node.task(1, on_culprit=OnCulprit.QUARANTINE)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.ServerOpened(server=server("q1"), ok=False, detail="no"))
    assert node.told() == {1: ("fail", "culprit", "")}


def test_the_only_client_is_the_culprit() -> None:
    node = Node()
    only = node.task(1)
    node.cuda(only, 716)
    assert node.told() == {1: ("fail", "culprit", "")}
    assert "misaligned address, CUDA 716" in node.verdicts()[only].reason


def test_a_stranger_is_named_and_every_task_is_a_bystander() -> None:
    node = Node()
    node.task(1)
    node.task(2)
    node.see(What.CULPRIT, color="a", client=Client(pid=77, job=JobId(9)))
    assert {job: told[:2] for job, told in node.told().items()} == dict.fromkeys((1, 2), ("promote", "bystander"))


def test_an_xid_with_a_pid_names_the_culprit_after_the_wait() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2)
    node.handling()
    node.xid(13, guilty)
    assert node.told() == {}
    told = node.told(node.wait(0.11))
    assert told == {1: ("fail", "culprit", ""), 2: ("promote", "bystander", "b")}


def test_nobody_named_splits_the_suspects_until_one_is_left() -> None:
    node = Node()
    tasks = [node.task(job) for job in (1, 2, 3, 4)]
    node.handling()
    effects = node.wait(0.11)
    told = node.told(effects)
    assert told == {1: ("promote", "suspect", "b"), 2: ("promote", "suspect", "b")}
    assert [one.server for one in node.of(fx.Open, effects)] == [server("q1")]
    node.do(ev.ServerOpened(server=server("q1"), ok=True, detail=""))
    assert node.told() == {3: ("restore", "suspect", "q1"), 4: ("restore", "suspect", "q1")}
    for who in tasks:
        node.do(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=pid(who) + 7, color=Color("b" if who.job < 3 else "q1")))
        node.do(ev.SessionOpened(ref=who, role=ev.Role.ACTIVE, pid=pid(who) + 7))
        node.do(ev.Stepped(ref=who, incident=_incident(node), seq=1, ms=1.0))
    node.rebuilt("a")
    assert not node.state.incidents
    # the second fault, again without a name, on the quarantine server: two suspects are left
    node.now += 5
    node.handling("q1")
    effects = node.wait(0.11)
    assert 1 not in node.told(effects)
    assert 2 not in node.told(effects)
    opened = [one.server.color for one in node.of(fx.Open, effects)]
    assert opened == ["q2"], "the other half goes to the colour where nobody runs"
    for color in opened:
        node.do(ev.ServerOpened(server=server(color), ok=True, detail=""))
    where = {who.job: node.state.tasks[who].server.color for who in tasks}
    assert where == {1: "b", 2: "b", 3: "a", 4: "q2"}
    # the third fault hits one alone: it is the culprit
    node.now += 5
    node.handling("q2")
    node.wait(0.11)
    assert node.told([one for one in node.log if isinstance(one, fx.Verdict)][-1:]) == {4: ("fail", "culprit", "")}


def test_a_fault_on_the_spare_touches_no_task() -> None:
    node = Node()
    first = node.task(1)
    second = node.task(2)
    effects = [*node.handling("b"), *node.wait(0.2)]
    assert not node.verdicts(effects)
    effects = node.rebuilt("b")
    assert {one.ref for one in node.of(fx.StartStandby, effects)} == {first, second}


def test_a_dead_server_blames_nobody() -> None:
    node = Node()
    node.task(1)
    node.task(2)
    node.see(What.SERVER_GONE, source=Source.CONTROL_LOG, color="a")
    assert node.told() == dict.fromkeys((1, 2), ("promote", "bystander", "b"))


def test_a_broken_gpu_requeues_elsewhere_and_drains_once() -> None:
    node = Node()
    first, second = node.task(1), node.task(2, batch=False)
    node.xid(79)
    assert node.told() == {1: ("requeue", "bystander", ""), 2: ("fail", "bystander", "")}
    (drain,) = node.of(fx.AskDrain)
    assert drain.reason.startswith("mpsr: GPU-1d5f7a52")
    node.see(What.XID, source=Source.NVML, xid=79)
    assert not node.of(fx.AskDrain)
    node.do(ev.Spilled(ref=first, seq=2))
    assert node.of(fx.AskRequeue)[0].exclude
    assert "GPU has fallen off the bus" in node.verdicts(node.log)[second].reason


def test_the_driver_asking_for_a_reset_condemns_the_gpu() -> None:
    node = Node()
    node.task(1)
    node.xid(154, recovery=0)
    assert node.told() == {}
    node.xid(154, recovery=4)
    assert node.told()[1][0] == "requeue"


def test_a_programs_word_does_not_drain() -> None:
    node = Node()
    who = node.task(1)
    effects = [*node.cuda(who, 214), *node.wait(5)]
    assert not node.of(fx.AskDrain, effects)
    assert node.told(effects)[1][1] == "bystander"


def test_a_failure_without_a_fault_passes_on() -> None:
    node = Node()
    who = node.task(1)
    node.task(2)
    node.exit(who)
    node.sight("a", Sight.ACTIVE)
    assert node.told(node.wait(0.031)) == {1: ("none", "unknown", "")}
    assert not node.state.incidents


def test_a_slow_daemon_is_waited_for_within_bounds() -> None:
    node = Node()
    who = node.task(1)
    node.exit(who)
    assert node.told(node.wait(0.5)) == {}
    assert node.told(node.wait(0.2)) == {1: ("none", "unknown", "")}


def test_a_failure_before_the_news_gets_its_verdict_by_part() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.exit(other)
    node.culprit(guilty)
    assert node.told() == {2: ("promote", "bystander", "b")}
    assert node.told(node.wait(1)) == {1: ("fail", "culprit", "")}


def test_a_failure_seen_only_in_the_servers_state() -> None:
    node = Node()
    who = node.task(1)
    node.task(2)
    node.exit(who)
    node.sight("a", Sight.FAULT)
    effects = node.wait(0.11)
    assert node.told(effects) == {1: ("promote", "suspect", "b")}
    assert [one.server for one in node.of(fx.Open, effects)] == [server("q1")]


def test_a_named_culprit_that_has_failed_is_not_passed_on_while_its_verdict_waits() -> None:
    node = Node()
    only = node.task(1)
    node.exit(only)
    node.sight("a", Sight.FAULT)
    assert node.told(node.wait(0.2)) == {1: ("fail", "culprit", "")}


def test_a_second_fault_on_the_rebuilt_server_is_a_second_incident() -> None:
    node = Node()
    guilty = node.task(1, colors=("a",))
    other = node.task(2, colors=("a",))
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.Gone(ref=guilty))
    node.now += 0.05
    node.rebuilt("a")
    node.do(ev.Started(ref=other, role=ev.Role.ACTIVE, pid=pid(other) + 5, color=Color("a")))
    third = node.task(3, colors=("a",))
    node.now += 0.05
    node.culprit(third)
    assert len(node.journal("incident.opened")) == 2


def test_late_words_of_the_old_process_open_nothing() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.Stepped(ref=other, incident=_incident(node), seq=1, ms=1.0))
    node.rebuilt("a")
    node.now += 3
    effects = [*node.cuda(other, 700), *node.exit(other, 9), *node.xid(31, guilty)]
    assert len(node.journal("incident.opened")) == 1
    assert not node.verdicts(effects)


def test_observing_says_what_would_be_done_and_does_nothing() -> None:
    node = Node(Recovery(mode="observe"))
    guilty, other = node.task(1), node.task(2)
    effects = [*node.culprit(guilty), *node.xid(31, guilty), *node.cuda(other), *node.exit(other), *node.wait(60)]
    effects += [*node.xid(79), *node.rebuilt("a")]
    allowed = (fx.Journal, fx.JobLine, fx.Poll, fx.SetTimer, fx.Verdict, fx.Watch, fx.Unwatch, fx.LookUpJob)
    assert not [one for one in effects if not isinstance(one, allowed)]
    assert {one.action.value for one in node.of(fx.Verdict, effects)} <= {"none"}
    dry = [row for row in node.journal("verdict") if row.get("dry_run") and "task" in row]
    assert {(row["task"], row["action"]) for row in dry} >= {("1.0.0", "fail"), ("2.0.0", "promote")}


def test_a_resumed_task_keeps_its_server() -> None:
    node = Node()
    hello = ev.Hello(
        ref=ref(1), lease=lease(1), server=server("q3"), mpi=False, resumed=True, retries=1, active=5, session=True
    )
    node.do(hello)
    task = node.state.tasks[ref(1)]
    assert (task.server, task.active, task.retries, task.session) == (server("q3"), 5, 1, True)
    assert node.state.pairs[DOMAIN, GPU].quarantines == 3


def test_another_task_of_the_same_name_has_nothing_to_do_with_the_fault() -> None:
    node = Node()
    gone = node.task(1)
    other = node.task(2)
    node.cuda(gone, 810)
    node.do(ev.Gone(ref=gone))
    node.task(1)
    told = node.told([*node.cuda(other, 700), *node.wait(0.2)])
    assert 1 not in told


def test_a_supervisor_that_came_back_is_told_again() -> None:
    node = Node()
    guilty = node.task(1, colors=("a",))
    other = node.task(2, colors=("a",))
    node.culprit(guilty)
    node.cuda(other, 700)
    node.do(ev.Gone(ref=other))
    resumed = ev.Hello(
        ref=other,
        lease=lease(2, colors=("a",)),
        server=server("a"),
        mpi=False,
        resumed=True,
        retries=0,
        active=pid(other),
        session=True,
    )
    node.do(resumed)
    node.cuda(other, 700)
    node.do(ev.ServerOpened(server=server("a"), ok=True, detail=""))
    assert node.told() == {2: ("restore", "bystander", "a")}


def test_a_task_that_comes_while_no_server_is_up_is_placed_later() -> None:
    node = Node()
    guilty = node.task(1, colors=("a",))
    node.culprit(guilty)
    hello = ev.Hello(
        ref=ref(2),
        lease=lease(2, colors=("a",)),
        server=server("a"),
        mpi=False,
        resumed=False,
        retries=0,
        active=0,
        session=False,
    )
    assert not node.of(fx.Place, node.do(hello))
    effects = node.rebuilt("a")
    assert [(one.ref, one.server) for one in node.of(fx.Place, effects)] == [(ref(2), server("a"))]


def test_a_standby_that_ends_is_started_again_a_few_times() -> None:
    node = Node()
    who = node.task(1)
    for number in range(1, 8):
        node.exit(who, 9, number, ev.Role.STANDBY)
        effects = node.wait(40)
        offered = node.of(fx.StartStandby, effects)
        assert len(offered) == (1 if number <= 5 else 0), number
        node.standby(who, "b", number + 1)


@pytest.mark.parametrize("rungs", [(Rung.RELAUNCH,), (Rung.RESTORE, Rung.REQUEUE), (Rung.REQUEUE,), ()])
def test_only_allowed_rungs_are_taken(rungs: tuple[Rung, ...]) -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2, recover=rungs)
    node.culprit(guilty)
    assert node.told()[2][0] == (rungs[0].value if rungs else "fail")


def test_everything_is_forgotten_when_the_last_task_leaves() -> None:
    node = Node()
    who = node.task(1)
    node.culprit(who)
    effects = node.do(ev.Gone(ref=who))
    assert {one.server.color for one in node.of(fx.Unwatch, effects)} == {"a", "b"}
    assert (node.state.tasks, node.state.pairs, node.state.jobs) == ({}, {}, {})
    node.wait(60)
    assert not node.state.incidents


# ---------------------------------------------------------------- a control daemon's death
def _daemon_gone(node: Node, color: str) -> None:
    node.see(What.DAEMON_GONE, source=Source.PROCESS, color=color)


def _newcomer(node: Node) -> None:
    hello = ev.Hello(
        ref=ref(2),
        lease=lease(2, colors=("a",)),
        server=server("a"),
        mpi=False,
        resumed=False,
        retries=0,
        active=0,
        session=False,
    )
    node.do(hello)


def test_tasks_of_a_server_without_a_daemon_go_on_and_newcomers_go_elsewhere() -> None:
    node = Node()
    first = node.task(1)
    _daemon_gone(node, "a")
    assert node.told() == {}
    assert node.of(fx.Open) == []
    assert node.of(fx.SetActive) == [fx.SetActive(server=server("b"))]
    node.task(2)
    assert node.state.tasks[ref(2)].server == server("b")
    node.do(ev.Gone(ref=first))
    assert [one.server for one in node.of(fx.Open)] == [server("a")]
    node.do(ev.ServerOpened(server=server("a"), ok=True, detail=""))
    assert node.state.pairs[DOMAIN, GPU].health(Color("a")) is Health.UP


def test_a_fault_on_a_server_without_a_daemon_is_recovered_like_any_other() -> None:
    node = Node()
    guilty, _ = node.task(1), node.task(2)
    _daemon_gone(node, "a")
    node.culprit(guilty)
    assert node.told()[2] == ("promote", "bystander", "b")


def test_a_standby_on_a_server_without_a_daemon_still_takes_over() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.task(3)
    node.state = replace(
        node.state, tasks={**node.state.tasks, ref(3): replace(node.state.tasks[ref(3)], server=server("b"))}
    )
    _daemon_gone(node, "b")
    assert node.state.pairs[DOMAIN, GPU].health(Color("b")) is Health.CLOSED
    node.culprit(guilty)
    assert node.told()[other.job] == ("promote", "bystander", "b")


def test_a_domain_with_one_server_gets_another_when_its_daemon_is_gone() -> None:
    node = Node()
    node.task(1, colors=("a",))
    _daemon_gone(node, "a")
    assert [one.server for one in node.of(fx.Open)] == [server("b")]
    _newcomer(node)
    assert node.of(fx.Place) == []
    node.do(ev.ServerOpened(server=server("b"), ok=True, detail=""))
    assert [(one.ref, one.server) for one in node.of(fx.Place)] == [(ref(2), server("b"))]


def test_where_a_gpu_takes_one_server_newcomers_are_refused_instead() -> None:
    node = Node(mps=Mps(compute_mode="exclusive"))
    node.task(1, colors=("a",))
    _daemon_gone(node, "a")
    assert node.of(fx.Open) == []
    _newcomer(node)
    assert [one.ref for one in node.of(fx.Refuse)] == [ref(2)]


def test_nobody_is_blamed_by_elimination_before_everyone_is_known() -> None:
    node = Node()
    node.state = replace(node.state, complete=node.now + 2.5)
    only = node.task(1)
    node.cuda(only, 715)
    node.wait(0.2)
    assert [row["culprit"] for row in node.journal("incident.attributed")] == [None]
    assert node.state.tasks[only].over is False


def test_a_process_that_could_not_join_for_want_of_a_daemon_is_started_elsewhere() -> None:
    node = Node()
    late, _ = node.task(1, session=False, ready=False), node.task(2)
    _daemon_gone(node, "a")
    node.exit(late, status=3 << 8)
    assert node.told() == {1: ("relaunch", "bystander", "b")}


def test_a_daemon_that_the_epilog_ends_is_not_started_again() -> None:
    node = Node()
    last = node.task(1)
    node.exit(last, status=0)
    _daemon_gone(node, "b")
    _daemon_gone(node, "a")
    assert node.of(fx.Open, node.log) == []


# ---------------------------------------------------------------- words that come late
def test_what_a_dead_standby_says_of_its_fault_is_not_about_the_task_that_left_its_server() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, ready=False)
    node.standby(other, "a", 2)  # on the server that will be hit
    node.culprit(guilty)
    assert node.told()[2] == ("restore", "bystander", "b")
    node.cuda(other, 719, 2)
    assert len(node.journal("incident.opened")) == 1


def test_a_task_that_comes_back_after_the_incident_began_gets_its_verdict() -> None:
    node = Node()
    node.state = replace(node.state, complete=node.now + 2.5)
    first = node.task(1)
    node.cuda(first, 715)
    node.task(2)
    node.cuda(ref(2), 715)
    node.wait(0.2)
    assert {row["task"] for row in node.journal("verdict")} == {"1.0.0", "2.0.0"}
