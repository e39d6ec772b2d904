"""How many clients does a server take, and what does the next one hear (E20)?"""

from typing import Any

from tests.gpu.faults import heard
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage
from tests.gpu.strings import Puppet, PuppetGone

MOST = 64
"""More than any driver is documented to take (48, from 590 on 60)."""
AT_A_TIME = 8


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    server = stage.server("s")
    cast = stage.cast(first=server)
    found["proof"], accepted, refused = cast.proof, 1, list[Any]()
    while accepted < MOST and not refused:
        answers = together(stage, server)
        accepted += sum(1 for one in answers if one.get("code") == 0 and one.get("mps") == 1)
        found["accepted"] = accepted
        refused = [one.get("code", one.get("gone")) for one in answers if one.get("code") != 0]
        refused += ["no error, but no MPS either" for one in answers if one.get("code") == 0 and one.get("mps") != 1]
    if refused:
        found["refused_with"] = refused[0]
    found["first_still_works"] = heard(cast["first"], "sync").get("code")


def together(stage: Stage, server: Server) -> list[dict[str, Any]]:
    """What a few more processes hear at their start, all at the same time."""
    batch = [stage.puppet("client", server) for _ in range(AT_A_TIME)]
    for puppet in batch:
        puppet.send("start")
    return [started(puppet) for puppet in batch]


def started(puppet: Puppet) -> dict[str, Any]:
    try:
        return puppet.hear()
    except PuppetGone as gone:
        return {"gone": gone.how}
