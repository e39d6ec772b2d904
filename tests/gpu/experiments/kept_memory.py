"""Does memory that a keeper only holds as a descriptor survive the fault of the process that made it, byte for byte (E7, E8, H1–H3)?

Ways of keeping: made by an MPS client and held as a descriptor by this process, which has no CUDA at all; made outside MPS by a
process without a context and mapped into a client. Read back on the other server, on the recovered server, and outside MPS.
"""

import os
from typing import Any

from tests.gpu.faults import MIB, commit, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Puppet, Server, Stage

SIZE = 64 * MIB


def read_back(reader: Puppet, fd: int, hint: int) -> dict[str, Any]:
    """Import, map, digest by a new process."""
    started = heard(reader, "start")
    imported = heard(reader, "import", fds=(fd,))
    mapped = heard(reader, "map", handle=imported.get("value", 0), size=SIZE, hint=hint)
    digest = heard(reader, "digest", address=mapped.get("value", 0), size=SIZE)
    reader.kill()  # a client that stays would be hit by the next fault
    return {"start": started.get("code"), "import": imported.get("code"), "map": mapped.get("code"),
            "same_address": mapped.get("value") == hint, "digest": digest}  # fmt: skip


def made_by_client(stage: Stage, server: Server | None) -> tuple[Puppet, dict[str, Any]]:
    client = stage.puppet("maker", server)
    heard(client, "start")
    return client, region(client, SIZE)


def made_outside(stage: Stage, server: Server | None) -> tuple[Puppet, dict[str, Any]]:
    """Memory from a process that has called cuInit and nothing else; the client imports it."""
    maker = stage.puppet("no-context")
    init = heard(maker, "init")
    made = maker.ask("create", size=SIZE)
    if made["code"]:
        return maker, {"code": made["code"], "init": init.get("code"), "address": 0, "fd": -1}
    client = stage.puppet("client", server)
    heard(client, "start")
    imported = client.ask("import", fds=(made["fds"][0],))
    mapped = client.ask("map", handle=imported.get("value", 0), size=SIZE)
    maker.kill()
    return client, {"code": imported["code"] or mapped["code"], "address": mapped["value"], "fd": made["fds"][0]}


def run(stage: Stage, found: Findings) -> None:
    one = stage.server("one") if stage.mps else None
    two = stage.server("two") if stage.mps else None
    for make in (made_by_client, made_outside):
        for kind in ("illegal-write", "trap", "SIGKILL"):
            client, kept = make(stage, one)
            row: dict[str, Any] = {"made": kept["code"]}
            found[f"{make.__name__}/{kind}"] = row
            if kept["code"]:
                client.kill()
                continue
            heard(client, "fill", address=kept["address"], size=SIZE, seed=7)
            row["before"] = heard(client, "digest", address=kept["address"], size=SIZE).get("sha256")
            if kind != "SIGKILL":
                row["fault"] = commit(kind, client)
                row["other_server_while_client_lives"] = read_back(stage.puppet("r", two), kept["fd"], kept["address"])
            client.kill()
            found.save()
            row["other_server"] = read_back(stage.puppet("reader", two), kept["fd"], kept["address"])
            row["outside_mps"] = read_back(stage.puppet("reader"), kept["fd"], kept["address"])
            if one:
                row["server_state"] = one.wait("ACTIVE", 15)
                row["recovered_server"] = read_back(stage.puppet("reader", one), kept["fd"], kept["address"])
            os.close(kept["fd"])
            found.save()
