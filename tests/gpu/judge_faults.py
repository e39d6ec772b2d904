"""What a run says of faults: who is hit, with which codes, for how long, and who is told (E1, E3, E17, E19, H4 to H8, H11)."""

import json
import re
from collections.abc import Callable
from statistics import median
from typing import Any

from tests.gpu.faults import KINDS, RARE
from tests.gpu.proof import Found, Measurement, Unseen, client, collect, faulted, proven, row, rows, yes

PROMPT_MS = 500.0
"""`at once`: within this of the moment at which the culprit heard its error; a busy test machine needs some of it."""
SERVER_LOSING = ("illegal-write", "illegal-read", "trap", "misaligned", "illegal-instruction")
"""Kinds of fault that the simulator takes for fatal to a whole server."""


def two_servers_one_gpu(found: Found) -> Measurement:
    def look(kind: str) -> bool:
        entry = faulted(found, "two_servers", kind)
        proven(entry, mps=("culprit", "bystander"), apart=("culprit", "bystander"))
        before, after = entry["before"], entry["bystander_on_other_server"]
        if "stopped_by" in before or not before.get("digest"):
            raise Unseen(f"two_servers: {kind}: the bystander was not well before: {before}")
        return "stopped_by" not in after and bool(after["rounds"]) and after["digest"] == before["digest"]

    seen, missing = collect(SERVER_LOSING, look)
    return Measurement(yes(all(seen.values())), missing)


def fault_codes(found: Found) -> Measurement:
    def look(kind: str) -> Any:
        entry = row(found, "two_servers", kind)
        proven(entry, mps=("culprit",))
        return entry["fault"].get("code", "gone")

    return Measurement(*collect(KINDS, look))


def rare_fault_codes(found: Found) -> Measurement:
    def look(kind: str) -> Any:
        entry = row(found, "rare_faults", f"mps/{kind}")
        proven(entry, mps=("culprit",))
        return entry["fault"].get("code", "gone")

    return Measurement(*collect(RARE, look))


def recovery_action(found: Found) -> Measurement:
    """What field 230 said after the faults; all that it said when that was not the same each time."""

    def look(name: str) -> Any:
        return faulted(found, "sightings", name)["recovery_action"]["after"]

    seen, missing = collect([f"{where}/{kind}" for where in ("outside", "mps") for kind in SERVER_LOSING], look)
    values = list(seen.values())
    return Measurement(values[0] if len({str(each) for each in values}) == 1 else values, missing)


def hit(found: Found, kind: str) -> dict[str, Any]:
    """An entry of `one_server` with culprit and innocent on one server."""
    entry = faulted(found, "one_server", kind)
    proven(entry, mps=("culprit", "innocent"))
    return entry


def innocent_code(found: Found) -> Measurement:
    def look(kind: str) -> dict[str, int]:
        entry = hit(found, kind)
        calls = {name: call["code"] for name, call in entry["innocent_calls"]["calls"].items() if name != "cuInit"}
        return {} if set(calls.values()) == {entry["fault"]["code"]} else calls

    seen, missing = collect(SERVER_LOSING, look)
    other = {kind: calls for kind, calls in seen.items() if calls}
    return Measurement("same" if not other else f"other codes: {json.dumps(other)}", missing)


def not_ready_from_cuinit(found: Found) -> Measurement:
    def look(kind: str) -> str:
        entry = hit(found, kind)
        if entry["newcomer_while_both_live"] != 807:
            return f"no 807 but {entry['newcomer_while_both_live']}"
        if entry["newcomers"][-1]["code"] != 0:
            raise Unseen(f"one_server: {kind}: the server did not take anybody again")
        return (
            f"{entry['newcomer_refused_by']}" if entry["refused_tries_cuInit_again"] == 0 else "cuInit, and not again"
        )

    seen, missing = collect(SERVER_LOSING, look)
    return Measurement(", ".join(dict.fromkeys(seen.values())), missing)


def rebuild(found: Found) -> Measurement:
    def look(kind: str) -> float:
        entry = faulted(found, "two_servers", kind)
        proven(entry, mps=("culprit",))
        if not entry["ready_after_exit"]:
            raise Unseen(f"two_servers: {kind}: the server stayed {entry['faulted_server_after_exit']}")
        return float(entry["seconds_until_active"]) * 1000

    seen, missing = collect(SERVER_LOSING, look)
    return Measurement(median(seen.values()), missing)


def server_init(found: Found) -> Measurement:
    def look(number: str) -> float:
        start = rows(found, "two_servers")["servers"][int(number)]
        if not start.get("ready"):
            raise Unseen(
                f"two_servers: a server was not ready: {start.get('state')}, rc {start.get('rc')} {start.get('out')}"
            )
        return float(start["seconds"]) * 1000

    seen, missing = collect(("0", "1"), look)
    return Measurement(min(seen.values()), missing)


def start_ms(call: str) -> Callable[[Found], Measurement]:
    def measure(found: Found) -> Measurement:
        entry = row(found, "costs", "mps")
        proven(entry, mps=("worker",))
        return Measurement(median(float(one[call]) for one in entry["start_us"] if call in one) / 1000)

    return measure


def context_memory(found: Found) -> Measurement:
    entry = row(found, "costs", "mps")
    proven(entry, mps=("worker",))
    return Measurement(float(entry["context_mib"]))


def xid_delay(found: Found) -> Measurement:
    def look(kind: str) -> str:
        entry = faulted(found, "sightings", f"mps/{kind}")
        proven(entry, mps=("culprit", "bystander"))
        for source in ("events", "kernel_log"):
            if not entry[source]["seen"]:
                return f"{kind}: nothing in {source} {entry[source]['trouble']}".rstrip()
            if entry[source]["seen"][0]["ms"] > PROMPT_MS:
                return f"{kind}: {source} after {entry[source]['seen'][0]['ms']:.0f} ms"
        named = entry["kernel_log"]["seen"][0]["pid_of"]
        return "" if named == "culprit" else f"{kind}: names {named}"

    seen, missing = collect(SERVER_LOSING, look)
    return Measurement("; ".join(filter(None, seen.values())) or "at once", missing)


def torn_stores(found: Found) -> Measurement:
    entry = faulted(found, "in_flight", "trap")
    proven(entry, mps=("victim", "culprit", "reader"), apart=("victim", "reader"))
    if entry["seeds_before"] != [0] or entry["launched"]["code"]:
        raise Unseen(f"in_flight: trap: the victim was not well before: {entry['seeds_before']}, {entry['launched']}")
    if not entry["victim_heard"]:
        raise Unseen("in_flight: trap: the fault did not reach the victim: all its work was done")
    if entry["wrote_later"]:
        return Measurement("goes on")
    return Measurement("stops" if entry["seeds"] != [entry["launched"]["launched"]] else "completes")


def assert_xid(found: Found) -> Measurement:
    entry = row(found, "sightings", "mps/assert")
    proven(entry, mps=("culprit",))
    if entry["events"]["trouble"]:
        raise Unseen(f"sightings: mps/assert: no events: {entry['events']['trouble']}")
    seen = entry["events"]["seen"]
    return Measurement(int(seen[0]["xid"]) if seen else 0)


def fault_across_users(found: Found) -> Measurement:
    entry = faulted(found, "users", "shared")
    for each in entry["clients_at_first"]:
        client(each, f"user {each.get('uid')}", mps=True)
    if entry["alice_before"]:
        raise Unseen(f"users: Alice was not well before: {entry['alice_before']}")
    return Measurement(yes(bool(entry["alice_heard"] == entry["fault"]["code"])))


def context_ids(found: Found) -> Measurement:
    def look(kind: str) -> set[str]:
        lines = [line for line in hit(found, kind)["logged"] if "is ACTIVE" in line]
        return {match[1] for line in lines if (match := re.search(r"\{(?:PID: )?\d+, (?:Context ID: )?(\d+)\}", line))}

    seen, missing = collect(SERVER_LOSING, look)
    ids = set[str]().union(*seen.values())
    if not ids:
        raise Unseen("one_server: server.log names no contexts")
    return Measurement("per process" if ids == {"1"} else f"others: {', '.join(sorted(ids)[:9])}", missing)
