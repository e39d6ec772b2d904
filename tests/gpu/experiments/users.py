"""Two users: one server for both, and two at a daemon that serves one at a time (E19, with their part of E7, E9, E13 and E21).

On a multi-user server: who is hit by a fault, may a descriptor go from one user to the other, who may read the logs. Needs root. The
daemons make their directories themselves, so that the modes are theirs.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.gpu.experiments.one_server import MOST_LINES
from tests.gpu.faults import MIB, commit, drop, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Puppet, Stage

ALICE, BOB = 64001, 64002
SIZE = 8 * MIB
WAIT_SECONDS = 3.0
"""How long a second user may wait for a server before it counts as waiting."""


def started(stage: Stage, server: Any, uid: int, timeout: float = 20.0) -> tuple[Puppet, Any]:
    """A client of that user, and the code of its start; `waits` where it had no answer in that time."""
    puppet = stage.puppet(f"user{uid}", server, uid)
    answer = heard(puppet, "start", timeout=timeout)
    return puppet, answer.get("code", "waits" if "no answer" in answer.get("gone", "") else answer.get("gone"))


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
    made = region(alice, SIZE)
    heard(alice, "fill", address=made["address"], size=SIZE, seed=3)
    before = heard(alice, "digest", address=made["address"], size=SIZE).get("sha256")
    imported = heard(bob, "import", fds=(made["fd"],))
    mapped = heard(bob, "map", handle=imported.get("value", 0), size=SIZE)
    digest = heard(bob, "digest", address=mapped.get("value", 0), size=SIZE)
    drop(made)
    return {"import": imported.get("code"), "map": mapped.get("code"), "digest": digest.get("code"),
            "same_bytes": before is not None and digest.get("sha256") == before}  # fmt: skip


def dirty(stage: Stage, server: Any) -> dict[str, Any]:
    """Does Bob's fresh memory hold what Alice left?"""
    alice, _ = started(stage, server, ALICE)
    old = region(alice, SIZE)
    heard(alice, "fill", address=old["address"], size=SIZE, seed=99)
    alice.kill()
    drop(old)
    bob, _ = started(stage, server, BOB)
    new = region(bob, SIZE)
    peeks = [heard(bob, "peek", address=new["address"] + at, size=4096) for at in range(0, SIZE, MIB)]
    bob.kill()
    drop(new)
    return {"peeks": len(peeks), "dirty": sum(1 for each in peeks if each.get("hex", "").strip("0"))}


def shared(stage: Stage) -> dict[str, Any]:
    option = multiuser_option(stage)
    server = stage.server("m", options=(option,), private=False)
    row: dict[str, Any] = {"option": option, "server": server.start}
    (alice, first), (bob, second) = started(stage, server, ALICE), started(stage, server, BOB)
    servers = server.command("get_server_list").split()
    row |= {
        "starts": [first, second],
        "servers": len(servers),
        "server_uid": os.stat(f"/proc/{servers[0]}").st_uid if servers else None,
        "clients": len(server.command(f"get_client_list {servers[0]}").split()) if servers else 0,
        "pipe_modes": modes(server.pipe),
        "log_modes": modes(server.log),
        "passed_on": passed_on(alice, bob),
    }
    mine, logged = region(alice, SIZE), len(server.log_lines("server.log"))
    row["pids"] = {"alice": alice.process.pid, "bob": bob.process.pid}
    row["fault"] = commit("trap", bob)
    answer = heard(alice, "fill", address=mine["address"], size=SIZE, seed=1)
    row["alice_heard"] = answer.get("code", answer.get("gone"))
    drop(mine)
    alice.kill()
    bob.kill()
    row["server_after"] = server.wait("ACTIVE", 10)
    row["logged"] = server.log_lines("server.log")[logged : logged + MOST_LINES]
    row["fresh_memory_of_another_user"] = dirty(stage, server)
    server.close()
    return row


def one_at_a_time(stage: Stage) -> dict[str, Any]:
    """A daemon of root without that option: Alice has a client, then Bob comes."""
    server = stage.server("s", private=False)
    alice, first = started(stage, server, ALICE)
    early, second = started(stage, server, BOB, WAIT_SECONDS)
    row: dict[str, Any] = {"alice": first, "bob_beside_alice": second,
                           "alice_still_works": heard(alice, "sync").get("code")}  # fmt: skip
    early.kill()
    alice.kill()
    late, third = started(stage, server, BOB)
    row["bob_after_alice"] = third
    late.kill()
    return row


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    if os.geteuid() != 0:
        found["skipped"] = "only root can become other users"
        return
    stage.folder.chmod(0o711)
    found["one_at_a_time"] = one_at_a_time(stage)
    found["shared"] = shared(stage)
