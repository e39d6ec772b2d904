"""What each sighting of an incident counted for: it named the culprit, it named another, or it named nobody. Pure.

The weight is `machine.attribute.weigh`'s, from what the journal kept of the sighting.
"""

from enum import StrEnum

from resilience.machine.attribute import weigh
from resilience.model.fault import Fault, FaultClass
from resilience.model.incident import Evidence
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.records import IncidentAttributed, Sighting


class Use(StrEnum):
    COUNTS = "counts"
    REJECTED = "rejected"
    SILENT = "names nobody"


def judged(seen: Sighting, decided: IncidentAttributed | None) -> tuple[Use, str]:
    """What a sighting was used for, and why so. `decided`: how the incident was attributed, None when it never was."""
    evidence = _weighed(seen)
    if evidence is None:
        return Use.SILENT, "a client that was hit" if seen.who is not None else "tells of the fault, not who did it"
    sure = evidence.confidence.value
    if decided is None:
        return Use.SILENT, f"{sure}, but the incident ended before it was decided"
    if decided.blameless:
        return Use.REJECTED, f"{sure}, but a fault of this class is nobody's doing"
    if decided.culprit is None:
        return Use.REJECTED, f"{sure}, but it came after the decision"
    if _same(evidence.client, decided.culprit):
        return Use.COUNTS, f"{sure} evidence"
    return (
        Use.REJECTED,
        f"{sure} evidence against another; {decided.confidence or 'better'} evidence names {decided.culprit}",
    )


def _weighed(seen: Sighting) -> Evidence | None:
    try:
        source, what, kind = Source(seen.source), What(seen.what), FaultClass(seen.fault)
    except ValueError:  # a word of another version, or of a sighting that is no fault's
        return None
    now = Observation(source=source, what=what, text=seen.text, wall=0.0, mono=0.0, boot_id=seen.boot)
    return weigh(now, Fault(kind=kind), seen.who)


def _same(one: Client, two: Client) -> bool:
    return one.task == two.task if one.task or two.task else (one.job, one.pid) == (two.job, two.pid)
