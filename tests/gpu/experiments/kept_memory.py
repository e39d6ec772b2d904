"""Does memory that a keeper only holds as a descriptor survive the fault of the process that made it, byte for byte (E7, E8, H1–H3)?

Ways of keeping: made by a process outside MPS or by an MPS client; made outside MPS by a process without a context and mapped into a
client. The descriptor is held by this process, which has no CUDA at all. Read back on the other server, on the recovered server and
outside MPS, by processes that import it only then. What needs no MPS and no fault comes first.
"""

import os
from typing import Any

from tests.gpu.faults import commit, exported
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Cast, Stage, Unhealthy
from tests.gpu.strings import Puppet, PuppetGone

SIZE_MIB = 64
SEED = 7


def read_back(reader: Puppet, kept: dict[str, Any], proof: dict[str, Any]) -> dict[str, Any]:
    """Import, map, digest by a process that has begun and is well; it is gone afterwards: a client that stays would be hit by the next
    fault."""
    told: dict[str, Any] = {"client": proof}
    try:
        imported = reader.ask("import", fds=(kept["fd"],))
        told["import"] = imported["code"]
        if imported["code"] == 0:
            mapped = reader.ask("map", handle=imported["value"], size=kept["size"], hint=kept["address"])
            told |= {"map": mapped["code"], "same_address": mapped["value"] == kept["address"]}
            if mapped["code"] == 0:
                told["digest"] = reader.ask("digest", address=mapped["value"], size=kept["size"])
    except PuppetGone as gone:
        told["gone"] = gone.how
    reader.kill()
    return told


def read_by(cast: Cast, name: str, kept: dict[str, Any]) -> dict[str, Any]:
    return read_back(cast[name], kept, cast.proof["clients"][name])


def late(stage: Stage, server: Server | None, kept: dict[str, Any]) -> dict[str, Any]:
    """A reader that begins only now."""
    try:
        return read_by(stage.cast(reader=server), "reader", kept)
    except (Unhealthy, PuppetGone) as error:
        return {"no_reader": str(error)}


def made_by_client(stage: Stage, cast: Cast, entry: dict[str, Any]) -> dict[str, Any]:
    size = stage.bytes(SIZE_MIB)
    return exported(cast["client"], size) | {"size": size}


def made_outside(stage: Stage, cast: Cast, entry: dict[str, Any]) -> dict[str, Any]:
    """Memory from a process that has called cuInit and nothing else; the client imports it."""
    maker = stage.puppet("no-context")
    if code := maker.ask("init")["code"]:
        raise Unhealthy(f"no-context does not start: CUDA error {code}")
    size = stage.bytes(SIZE_MIB)
    made = maker.ask("create", size=size)
    if not made["fds"]:
        raise Unhealthy(f"no-context: no descriptor of its memory: CUDA error {made['code'] or made['export']['code']}")
    imported = cast["client"].ask("import", fds=(made["fds"][0],))
    entry["import_by_client"] = imported["code"]
    mapped = imported if imported["code"] else cast["client"].ask("map", handle=imported["value"], size=size)
    maker.kill()
    if mapped["code"]:
        os.close(made["fds"][0])
        raise Unhealthy(f"client cannot import and map the memory: CUDA error {mapped['code']}")
    return {"address": mapped["value"], "fd": made["fds"][0], "size": size}


MAKERS = {"outside": made_by_client, "made_by_client": made_by_client, "made_outside": made_outside}


def one_row(stage: Stage, entry: dict[str, Any], made: str, kind: str, one: Server | None, two: Server | None) -> None:
    places = {"client": one, "living": None, "outside_mps": None} | ({"other_server": two} if two else {})
    if one and kind == "SIGKILL":
        places["recovered_server"] = one
    cast = stage.cast(**places)
    entry["proof"] = cast.proof
    client = cast["client"]
    kept = MAKERS[made](stage, cast, entry)
    try:
        filled = client.ask("fill", address=kept["address"], size=kept["size"], seed=SEED)
        digest = client.ask("digest", address=kept["address"], size=kept["size"])
        if filled["code"] or digest["code"]:
            raise Unhealthy(f"client does not work on it: CUDA error {filled['code'] or digest['code']}")
        entry["before"] = digest["sha256"]
        entry["while_maker_lives"] = read_by(cast, "living", kept)
        if kind != "SIGKILL":
            entry["fault"] = commit(kind, client)
        client.kill()
        for reader in ("other_server", "outside_mps", "recovered_server"):
            if reader in places:
                entry[reader] = read_by(cast, reader, kept)
        if one and kind != "SIGKILL":
            state = entry["server_state"] = one.wait_ready()
            entry["recovered_server"] = (
                late(stage, one, kept) if one.ready(state) else {"no_reader": f"server one stays {state}"}
            )
    finally:
        os.close(kept["fd"])


def run(stage: Stage, found: ExperimentFindings) -> None:
    with row(stage, found, "outside/SIGKILL") as entry:
        one_row(stage, entry, "outside", "SIGKILL", None, None)
    if not stage.mps:
        with row(stage, found, "outside/trap") as entry:
            one_row(stage, entry, "outside", "trap", None, None)
        return
    one, two = stage.open("one", "two")
    found["servers"] = [one.start, two.start]
    spare = two if two.start["ready"] else None  # without it the rest still tells
    for kind in ("SIGKILL", "trap", "illegal-write"):
        for made in ("made_by_client", "made_outside"):
            one = stage.usable(one)
            with row(stage, found, f"{made}/{kind}") as entry:
                one_row(stage, entry, made, kind, one, spare)
