"""The figures made from what the machine writes: every fault is counted once, whatever happens."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.model import event as ev
from resilience.model.lease import Isolation
from resilience.model.observation import Source, What
from resilience.model.options import OnCulprit, Rung
from resilience.model.settings import Recovery
from resilience.model.world import Health, ServerState
from resilience.placement.domain_plan import PAIR
from tests.unit.machine_kit import UUID, Node, ref, server
from tests.unit.metrics_kit import BRIEFLY, changed, journalled


def test_the_figures_of_a_fault_as_the_machine_tells_it() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.cuda(other)
    (incident,) = node.state.incidents
    node.do(ev.Stepped(ref=other, incident=incident, seq=3, ms=1.0, at=node.now))
    node.rebuilt("a")
    node.wait(5.0)
    figures = changed(journalled(node))
    assert figures["mpsr_faults_total{attribution=certain},{class=mmu}"] == 1
    assert figures[f"mpsr_gpu_faults_total{{gpu={UUID}}},{{xid=31}}"] == 1
    assert figures["mpsr_verdicts_total{action=promote}"] == 1
    assert figures["mpsr_recovery_duration_seconds_count{rung=standby}"] == 1
    assert figures["mpsr_task_outcomes_total{outcome=recovered},{part=bystander}"] == 1
    assert figures["mpsr_task_outcomes_total{outcome=failed},{part=culprit}"] == 1
    assert figures["mpsr_server_recovery_duration_seconds_count{how=rebuilt}"] == 1
    assert figures["mpsr_tasks_started_total"] == 2
    assert "mpsr_incidents_open" not in figures
    assert "mpsr_servers_unavailable{state=faulted}" not in figures
    assert not [key for key in figures if "other}" in key]


def test_a_server_is_unavailable_from_its_fault_on() -> None:
    node = Node()
    node.task(1)
    node.handling()
    figures = changed(journalled(node))
    assert (figures["mpsr_servers_unavailable{state=faulted}"], figures["mpsr_incidents_open"]) == (1, 1)


def test_a_lost_daemon_leaves_its_server_closed() -> None:
    node = Node()
    node.task(1)
    node.see(What.DAEMON_GONE, source=Source.PROCESS, color="a")
    assert changed(journalled(node))["mpsr_servers_unavailable{state=closed}"] == 1


def test_a_gpu_out_of_use_is_nobodys_doing() -> None:
    node = Node()
    first, _ = node.task(1), node.task(2, batch=False)
    node.xid(79)
    figures = changed(journalled(node))
    assert (figures["mpsr_servers_unavailable{state=down}"], figures["mpsr_incidents_open"]) == (2, 1)
    node.do(ev.Spilled(ref=first, seq=2))
    for ask, job in ((ev.Ask.DRAIN, None), (ev.Ask.REQUEUE, first.job)):
        node.do(ev.SlurmAnswered(ask=ask, job=job, ok=True, detail=""))
    figures = changed(journalled(node))
    assert figures["mpsr_faults_total{attribution=blameless},{class=device}"] == 1
    assert figures[f"mpsr_gpu_faults_total{{gpu={UUID}}},{{xid=79}}"] == 1
    assert figures["mpsr_task_outcomes_total{outcome=requeued},{part=bystander}"] == 1
    assert figures["mpsr_slurm_requests_total{outcome=done},{request=requeue}"] == 1
    assert figures["mpsr_slurm_requests_total{outcome=done},{request=drain}"] == 1


def test_a_fault_that_was_seen_in_two_partitions_is_one() -> None:
    node = Node()
    for number in (1, 2):
        node.task(number, isolation=Isolation.SM, slot=number)
        node.cuda(ref(number))
    assert changed(journalled(node))["mpsr_incidents_open"] == 2
    node.sight("a", ServerState.FAULT)
    figures = changed(journalled(node))
    assert figures["mpsr_incidents_open"] == 1
    assert not [key for key in figures if key.startswith("mpsr_faults_total")]


def test_observe_mode_counts_only_what_would_be() -> None:
    node = Node(Recovery(mode="observe"))
    guilty, _ = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    figures = changed(journalled(node))
    assert figures["mpsr_dry_run_verdicts_total{action=fail}"] == 1
    assert figures["mpsr_dry_run_verdicts_total{action=promote}"] == 1
    assert not [key for key in figures if key.startswith("mpsr_verdicts_total")]


@pytest.mark.parametrize("wish", [OnCulprit.REQUEUE, OnCulprit.FAIL])
def test_the_breaker_says_so_when_it_costs_a_task_its_requeue(wish: OnCulprit) -> None:
    node = Node(Recovery(max_requeues_per_hour=0))
    guilty = node.task(1, on_culprit=wish)
    node.task(2, session=False, retries=3, recover=(Rung.RELAUNCH, Rung.REQUEUE))
    node.task(3, session=False, retries=3, recover=(Rung.RELAUNCH,))
    node.culprit(guilty)
    node.xid(31, guilty)
    blocked = [row["job"] for row in node.journal("breaker.open")]
    assert sorted(map(str, blocked)) == (["1", "2"] if wish is OnCulprit.REQUEUE else ["2"])
    assert changed(journalled(node))["mpsr_breaker_blocked_total{request=requeue}"] == len(blocked)


def test_a_requeue_that_slurm_refuses_is_not_the_breakers() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2, session=False, batch=False, retries=3, recover=(Rung.RELAUNCH, Rung.REQUEUE))
    node.culprit(guilty)
    assert node.told()[2][0] == "fail"
    assert node.journal("breaker.open") == []


@BRIEFLY
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["culprit", "cuda", "exit", "xid", "gone"]), st.integers(1, 4)),
            st.tuples(
                st.sampled_from(["handling", "fault", "active", "wait", "daemon", "opened", "failed"]),
                st.sampled_from([1, 2]),
            ),
        ),
        max_size=25,
    )
)
def test_whatever_happens_every_fault_is_counted_once(story: list[tuple[str, int]]) -> None:
    """Of the machine's own books: an incident is open, or counted, or was the same fault as another."""
    node = Node()
    tasks = {number: node.task(number) for number in range(1, 5)}
    for what, number in story:
        who, color = tasks.get(number), "ab"[number % 2]
        match what:
            case "culprit" | "cuda" | "exit" if who is not None:
                getattr(node, what)(who)
            case "xid" if who is not None:
                node.xid(31, who)
            case "gone" if who is not None:
                node.do(ev.Gone(ref=tasks.pop(number)))
            case "handling":
                node.see(What.HANDLING, color=color)
            case "fault" | "active":
                node.do(ev.ServerSeen(server=server(color), sight=ServerState[what.upper()], asked=node.now))
            case "daemon":
                node.see(What.DAEMON_GONE, source=Source.PROCESS, color=color)
            case "opened" | "failed":
                node.do(ev.ServerOpened(server=server(color), ok=what == "opened", detail=""))
            case "wait":
                node.wait(3.0)
    records = journalled(node)
    figures = changed(records)

    def total(name: str) -> float:
        return sum(count for key, count in figures.items() if re.split(r"\{", key)[0] == name)

    merged = sum("same_as" in record for record in records)
    opened = sum(record["event"] == "incident.opened" for record in records)
    assert total("mpsr_faults_total") == total("mpsr_gpu_faults_total") == opened - merged - len(node.state.incidents)
    assert total("mpsr_incidents_open") == len(node.state.incidents)
    verdicts = [record for record in records if record["event"] == "verdict"]
    assert total("mpsr_verdicts_total") == len(verdicts)
    closed = [record for record in records if record["event"] == "incident.closed"]
    assert total("mpsr_task_outcomes_total") == sum(len(record.get("outcomes", ())) for record in closed)
    assert not [key for key in figures if "=other}" in key]
    servers = [(color, known) for pair in node.state.pairs.values() for color, known in pair.servers.items()]
    out = sum(color in PAIR and known.health is not Health.UP for color, known in servers)
    if len(tasks) == 4:
        assert total("mpsr_servers_unavailable") == out
    else:  # what the machine forgets with its last task is closed by an epilog, which is not part of this
        assert total("mpsr_servers_unavailable") >= out
