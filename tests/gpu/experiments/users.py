"""Two users: one server for both, and two at a daemon that serves one at a time (E19, with their part of E7, E9, E13 and E21).

On a multi-user server: who is hit by a fault, may a descriptor go from one user to the other, who may read the logs. Needs root. The
daemons make their directories themselves, so that the modes are theirs.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.gpu.experiments.one_server import MOST_LINES
from tests.gpu.faults import MIB, commit, drop, exported, heard, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage, Unhealthy
from tests.gpu.strings import Puppet

ALICE, BOB = 64001, 64002
SIZE = 8 * MIB
WAIT_SECONDS = 3.0
"""How long a second user may wait for a server before it counts as waiting."""


def started(stage: Stage, server: Server, uid: int, timeout: float = 20.0) -> tuple[Puppet, dict[str, Any]]:
    """A client of that user, and what it heard at its start; `waits` as its code where it had no answer in that time."""
    puppet = stage.puppet(f"user{uid}", server, uid)
    answer = heard(puppet, "start", timeout=timeout)
    code = answer.get("code", "waits" if "no answer" in answer.get("gone", "") else answer.get("gone"))
    return puppet, {
        "uid": uid,
        "pid": puppet.process.pid,
        "server": server.name,
        "code": code,
        "mps": answer.get("mps"),
    }


def healthy(stage: Stage, server: Server, uid: int) -> tuple[Puppet, dict[str, Any]]:
    """The same, and it is a client indeed."""
    puppet, told = started(stage, server, uid)
    if told["code"] != 0 or told["mps"] != 1:
        raise Unhealthy(
            f"user {uid} is no client of server {server.name}: code {told['code']}, attribute 133 is {told['mps']}"
        )
    return puppet, told


def multiuser_option(stage: Stage) -> str:
    """Its spelling in this driver: 580 and later have `-M`, and take the older word for several letters."""
    told = subprocess.run([stage.mps, "-h"], env=stage.environ, capture_output=True, text=True, check=False, timeout=10)
    return "-M" if "--multiuser-server" in told.stdout + told.stderr else "-multiuser-server"


def modes(folder: Path) -> dict[str, str]:
    """Owner and mode of a directory and of what is in it."""
    paths = [folder, *sorted(folder.iterdir())]
    return {path.name: f"{(found := path.stat()).st_uid} {found.st_mode & 0o7777:o}" for path in paths}


def passed_on(alice: Puppet, bob: Puppet) -> dict[str, Any]:
    """Alice's memory, handed to Bob as a descriptor."""
    made = exported(alice, SIZE)
    alice.ask("fill", address=made["address"], size=SIZE, seed=3)
    before = alice.ask("digest", address=made["address"], size=SIZE).get("sha256")
    imported = heard(bob, "import", fds=(made["fd"],))
    mapped = heard(bob, "map", handle=imported.get("value", 0), size=SIZE)
    digest = heard(bob, "digest", address=mapped.get("value", 0), size=SIZE) if mapped.get("code") == 0 else mapped
    drop(made)
    return {"import": imported.get("code"), "map": mapped.get("code"), "digest": digest.get("code"),
            "same_bytes": before is not None and digest.get("sha256") == before}  # fmt: skip


def dirty(stage: Stage, server: Server) -> dict[str, Any]:
    """Does Bob's fresh memory hold what Alice left?"""
    alice, first = healthy(stage, server, ALICE)
    old = region(alice, SIZE)
    filled = alice.ask("fill", address=old["address"], size=SIZE, seed=99)
    alice.kill()
    drop(old)
    bob, second = healthy(stage, server, BOB)
    new = region(bob, SIZE)
    peeks = [bob.ask("peek", address=new["address"] + at, size=4096) for at in range(0, SIZE, MIB)]
    drop(new)
    return {"clients": [first, second], "filled": filled["code"], "peeks": len(peeks),
            "codes": sorted({each["code"] for each in peeks}), "dirty": sum(1 for each in peeks if each["hex"].strip("0"))}  # fmt: skip


def shared(stage: Stage, entry: dict[str, Any]) -> None:
    option = multiuser_option(stage)
    server = stage.server("m", options=(option,), private=False)
    entry |= {"option": option, "server": server.start}
    (alice, first), (bob, second) = healthy(stage, server, ALICE), healthy(stage, server, BOB)
    servers = server.command("get_server_list").split()
    entry |= {
        "clients_at_first": [first, second],
        "servers": len(servers),
        "server_uid": os.stat(f"/proc/{servers[0]}").st_uid if servers else None,
        "clients": len(server.clients()),
        "pipe_modes": modes(server.pipe),
        "log_modes": modes(server.log),
    }
    mine, logged = region(alice, SIZE), len(server.log_lines("server.log"))
    drop(mine)
    try:
        entry["passed_on"] = passed_on(alice, bob)
    except Unhealthy as error:
        entry["passed_on"] = {"failed": str(error)}
    entry["pids"] = {"alice": alice.process.pid, "bob": bob.process.pid}
    entry["alice_before"] = alice.ask("fill", address=mine["address"], size=SIZE, seed=2)["code"]
    entry["fault"] = commit("trap", bob)
    answer = heard(alice, "fill", address=mine["address"], size=SIZE, seed=1)
    entry["alice_heard"] = answer.get("code", answer.get("gone"))
    alice.kill()
    bob.kill()
    entry["server_after"] = server.wait_ready()
    entry["logged"] = server.log_lines("server.log")[logged : logged + MOST_LINES]
    entry["fresh_memory_of_another_user"] = dirty(stage, server)
    server.close()


def one_at_a_time(stage: Stage, entry: dict[str, Any]) -> None:
    """A daemon of root without that option: Alice has a client, then Bob comes."""
    server = stage.server("s", private=False)
    alice, entry["alice"] = healthy(stage, server, ALICE)
    early, second = started(stage, server, BOB, WAIT_SECONDS)
    entry |= {"bob_beside_alice": second, "alice_still_works": heard(alice, "sync").get("code")}
    early.kill()
    alice.kill()
    _, entry["bob_after_alice"] = started(stage, server, BOB)


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    if os.geteuid() != 0:
        found["skipped"] = "only root can become other users"
        return
    stage.folder.chmod(0o711)
    for name, asked in (("one_at_a_time", one_at_a_time), ("shared", shared)):
        with row(stage, found, name) as entry:
            asked(stage, entry)
