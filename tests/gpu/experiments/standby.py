"""How fast does a standby take over, stand-ins making way for the state, and what does it cost while idle (E11)?

It waits on a spare server, or outside MPS, and a neighbour of the active process faults. Where nothing is in MPS, the active process faults
itself. As in the product it has no byte of the state before: one page of its own stands at the addresses of `work`, nothing at those of
`kept`, and the descriptors are elsewhere.
"""

import os
import time
from typing import Any

from tests.gpu.faults import MIB, commit, exported, heard
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Stage, Unhealthy
from tests.gpu.strings import Puppet

SIZES_MIB = (64, 1024)
STEPS = 20


def one_row(stage: Stage, entry: dict[str, Any], size: int, one: Server | None, spare: Server | None) -> None:
    """`one`: server of the active process and of the culprit; `spare`: that of the standby."""
    cast = stage.cast(active=one, standby=spare, **({"culprit": one} if one else {}))
    entry["proof"] = cast.proof
    active, standby = cast["active"], cast["standby"]
    work, kept = exported(active, size), exported(active, size)
    try:
        taken_over(entry, size, (active, work, kept), standby, cast["culprit"] if one else active)
    finally:
        os.close(work["fd"])
        os.close(kept["fd"])


def waiting(entry: dict[str, Any], size: int, work: int, kept: int, standby: Puppet) -> list[int]:
    """The standby's addresses of both: it has worked on its stand-ins by then."""
    stand_in = standby.ask("stand_in", size=size, hint=work)
    reserved = standby.ask("reserve", size=size, hint=kept)
    if stand_in["code"] or reserved["code"]:
        raise Unhealthy(f"standby has no stand-ins: CUDA error {stand_in['code'] or reserved['code']}")
    entry["stand_in_us"] = stand_in["us"]
    entry["rehearsal"] = heard(standby, "fill", address=stand_in["value"], size=size, seed=9)
    entry["same_addresses"] = [stand_in["value"], reserved["value"]] == [work, kept]
    return [stand_in["value"], reserved["value"]]


def taken_over(
    entry: dict[str, Any],
    size: int,
    state: tuple[Puppet, dict[str, Any], dict[str, Any]],
    standby: Puppet,
    culprit: Puppet,
) -> None:
    """`state`: the active process, what it works on, what it keeps."""
    active, work, kept = state
    entry["step_us_without_standby"] = [
        active.ask("fill", address=work["address"], size=size, seed=3)["us"] for _ in range(STEPS)
    ]
    untouched = active.ask("peek", address=work["address"])["hex"]
    addresses = waiting(entry, size, work["address"], kept["address"], standby)
    entry["untouched"] = active.ask("peek", address=work["address"])["hex"] == untouched
    entry["step_us_beside_idle_standby"] = [
        active.ask("fill", address=work["address"], size=size, seed=3)["us"] for _ in range(STEPS)
    ]
    copied = active.ask("copy", target=kept["address"], source=work["address"], size=size)
    digest = active.ask("digest", address=kept["address"], size=size)
    if copied["code"] or digest["code"]:
        raise Unhealthy(f"active does not work: CUDA error {copied['code'] or digest['code']}")
    entry["before"] = digest["sha256"]
    fault = entry["fault"] = commit("trap", culprit)
    begin = time.monotonic()
    entry["active_heard"] = heard(active, "sync")
    noticed = time.monotonic()
    regions = [(addresses[0], True), (addresses[1], False)]
    entry["give_way"] = heard(standby, "give_way", fds=(work["fd"], kept["fd"]), regions=regions, size=size)
    entry["copy"] = heard(standby, "copy", target=addresses[0], source=addresses[1], size=size)
    entry["first_step"] = heard(standby, "fill", address=addresses[0], size=MIB, seed=4)
    entry["ms_notice_to_first_step"] = (time.monotonic() - noticed) * 1000
    entry["ms_fault_to_notice"] = (noticed - fault.get("ended", begin)) * 1000
    after = heard(standby, "digest", address=addresses[1], size=size)
    entry["kept_bytes_same"] = after.get("sha256") == entry["before"]


def run(stage: Stage, found: ExperimentFindings) -> None:
    sizes = list(map(stage.bytes, SIZES_MIB))
    with row(stage, found, f"no MPS/{sizes[0] // MIB} MiB") as entry:
        one_row(stage, entry, sizes[0], None, None)
    if not stage.mps:
        return
    one, two = stage.open("one", "two")
    found["servers"] = [one.start, two.start]
    for size, place, spare in (
        (sizes[0], "spare server", two),
        (sizes[0], "outside MPS", None),
        (sizes[1], "spare server", two),
    ):
        one = stage.usable(one)
        with row(stage, found, f"{place}/{size // MIB} MiB") as entry:
            one_row(stage, entry, size, one, spare)
        one.wait_ready()
