"""Evidence to culprit, with the confidence that it deserves."""

from typing import Any

from resilience.catalog import cuda_errors, xids
from resilience.machine.attribute import attribute, weigh
from resilience.machine.classify import classify
from resilience.model.fault import Fault
from resilience.model.ids import JobId, TaskRef
from resilience.model.incident import Attribution, Confidence, Evidence
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.radius import Process, Server
from resilience.model.world import Suspicion
from tests.unit.machine_kit import client, ref

A, B, C, D = (ref(job) for job in (1, 2, 3, 4))


def _who(evidence: list[Evidence] | None = None, fault: Fault | None = None, **facts: Any) -> Attribution:
    given: dict[str, Any] = {
        "clients": frozenset({A, B, C}),
        "strangers": 0,
        "hits": frozenset[TaskRef](),
        "complete": True,
    }
    earlier = facts.pop("earlier", None)
    kind = Server if facts.pop("hit", True) else Process
    return attribute(evidence or [], fault or xids()[31], kind(**(given | facts)), earlier)


def _evidence(who: TaskRef, what: What, source: Source, **fields: Any) -> Evidence | None:
    now = Observation(source=source, what=what, text="", wall=0, mono=0, boot_id="", **fields)
    return weigh(now, classify(now), client(who))


def test_the_servers_log_is_certain_and_outweighs_an_xid() -> None:
    log = _evidence(A, What.CULPRIT, Source.SERVER_LOG)
    kernel = _evidence(B, What.XID, Source.KMSG, xid=31)
    assert log is not None
    assert kernel is not None
    assert (log.confidence, kernel.confidence) == (Confidence.CERTAIN, Confidence.STRONG)
    named = _who([kernel, log])
    assert named.culprit is not None
    assert named.culprit.task == A


def test_the_guard_is_certain() -> None:
    found = _evidence(A, What.ISOLATED, Source.GUARD, xid=31)
    assert found is not None
    assert found.confidence is Confidence.CERTAIN


def test_a_follow_on_xid_or_a_program_is_no_evidence() -> None:
    assert _evidence(A, What.XID, Source.KMSG, xid=45) is None
    assert _evidence(A, What.XID, Source.NVML, xid=31) is None
    assert _evidence(A, What.CUDA, Source.CLIENT, cuda=700) is None


def test_a_process_that_nobody_knows_is_no_evidence() -> None:
    now = Observation(source=Source.SERVER_LOG, what=What.CULPRIT, text="", wall=0, mono=0, boot_id="")
    assert weigh(now, classify(now), Client(pid=5)) is None
    assert weigh(now, classify(now), None) is None
    assert weigh(now, classify(now), Client(pid=5, job=JobId(9))) is not None


def test_the_only_client_did_it_unless_a_stranger_was_there() -> None:
    assert _who(clients=frozenset({A})).confidence is Confidence.CERTAIN
    shared = _who(clients=frozenset({A}), strangers=1)
    assert shared.culprit is None
    assert shared.suspects == {A}


def test_hardware_is_nobodys_doing() -> None:
    log = _evidence(A, What.CULPRIT, Source.SERVER_LOG)
    assert log is not None
    for fault in (xids()[79], xids()[94], cuda_errors()[226].fault, cuda_errors()[806].fault):
        result = _who([log], fault)
        assert result.blameless
        assert result.culprit is None


def test_one_hit_while_the_server_goes_on() -> None:
    one = _who(hit=False, hits=frozenset({B}))
    assert one.culprit is not None
    assert (one.culprit.task, one.confidence) == (B, Confidence.STRONG)


def test_nobody_named_is_everybody_suspected() -> None:
    assert _who() == Attribution(confidence=Confidence.NONE, suspects=frozenset({A, B, C}), why=("nobody was named",))


def test_earlier_suspects_narrow_and_newcomers_widen() -> None:
    before = Suspicion(at=0, clients=frozenset({A, B, C}), suspects=frozenset({A, B}))
    assert _who(earlier=before).suspects == {A, B}
    assert _who(earlier=before, clients=frozenset({A, B, C, D})).suspects == {A, B, D}
    last = _who(earlier=before, clients=frozenset({A, C}))
    assert last.culprit is not None
    assert (last.culprit.task, last.confidence) == (A, Confidence.STRONG)
    weak = _who(earlier=before, clients=frozenset({A, C, D}))
    assert (weak.confidence, weak.alone, weak.suspects) == (Confidence.WEAK, A, frozenset({A, D}))
    assert _who(earlier=before, clients=frozenset({C, D})).suspects == {C, D}
