"""What a hardware run says about each assumption of the simulator's profile: `python3 -m tests.gpu.verdicts results.json`.

A verdict brings findings into the form of the profile's value, so that the two can be compared; it judges nothing else. Where an experiment
was left out or did not get that far the verdict is `Unseen` with the reason, never a guess. tests/conformance/test_hardware_run.py
asserts the verdicts on the simulated GPU and records them on a real one.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.gpusim import profile

Found = Mapping[str, Any]
"""The part `experiments` of results.json."""
PROMPT_MS = 500.0
"""`at once`: within this of the moment at which the culprit heard its error; a busy test machine needs some of it."""
SERVER_LOSING = ("illegal-write", "illegal-read", "trap", "misaligned", "illegal-instruction")
"""Kinds of fault that the simulator takes for fatal to a whole server."""


class Unseen(Exception):
    """The run does not say."""


def rows(found: Found, experiment: str) -> dict[str, Any]:
    """What an experiment found."""
    told: dict[str, Any] = found.get(experiment, {}).get("found") or {}
    if not told or "skipped" in told:
        raise Unseen(f"{experiment}: {told.get('skipped') or found.get(experiment, {}).get('how', 'was not run')}")
    return told


def row(found: Found, experiment: str, name: str) -> dict[str, Any]:
    """One entry of what it found."""
    told = rows(found, experiment)
    if name not in told or "skipped" in told[name]:
        raise Unseen(f"{experiment}: did not get to {name}")
    entry: dict[str, Any] = told[name]
    return entry


def faults(found: Found, experiment: str) -> dict[str, dict[str, Any]]:
    """By kind, the entries whose fault happened and cost a server its contexts."""
    seen = {kind: row(found, experiment, kind) for kind in SERVER_LOSING}
    happened = {kind: one for kind, one in seen.items() if one.get("fault", {}).get("code")}
    if not happened:
        raise Unseen(f"{experiment}: no fault happened")
    return happened


def yes(condition: bool) -> str:
    return "yes" if condition else "no"


def same_bytes(kept: Mapping[str, Any], *readers: str) -> bool:
    return all(kept[reader]["digest"].get("sha256") == kept["before"] for reader in readers)


def raw_fd_keeps_memory(found: Found) -> str:
    return yes(same_bytes(row(found, "kept_memory", "made_by_client/SIGKILL"), "outside_mps"))


def memory_survives_server_fault(found: Found) -> str:
    kept = [row(found, "kept_memory", f"{made}/{kind}")
            for made in ("made_by_client", "made_outside") for kind in ("illegal-write", "trap")]  # fmt: skip
    return yes(all(same_bytes(one, "other_server", "outside_mps", "recovered_server") for one in kept))


def import_across_servers(found: Found) -> str:
    kept = row(found, "kept_memory", "made_outside/SIGKILL")
    return yes(
        kept["made"] == 0 and all(kept[reader]["import"] == 0 for reader in ("other_server", "recovered_server"))
    )


def two_servers_one_gpu(found: Found) -> str:
    alone = [one["bystander_on_other_server"] for one in faults(found, "two_servers").values()]
    return yes(all(one["rounds"] and "stopped_by" not in one for one in alone))


def fault_codes(found: Found) -> dict[str, Any]:
    told = rows(found, "two_servers").items()
    return {kind: one["fault"].get("code", "gone") for kind, one in told if isinstance(one, dict) and "fault" in one}


def rare_fault_codes(found: Found) -> dict[str, Any]:
    told = rows(found, "rare_faults").items()
    return {
        name.removeprefix("mps/"): one["fault"].get("code", "gone") for name, one in told if name.startswith("mps/")
    }


def recovery_action(found: Found) -> Any:
    """What field 230 said after the faults; all that it said when that was not the same each time."""
    seen = [one["recovery_action"]["after"] for one in rows(found, "sightings").values()]
    return seen[0] if len({str(each) for each in seen}) == 1 else seen


def other_uid(found: Found) -> Any:
    heard = row(found, "users", "one_at_a_time")["bob_beside_alice"]
    return {807: 0, "waits": 1}.get(heard, f"hears {heard}")


def fault_across_users(found: Found) -> str:
    seen = row(found, "users", "shared")
    return yes(bool(seen["fault"].get("code")) and seen["alice_heard"] == seen["fault"]["code"])


def fd_across_users(found: Found) -> str:
    return yes(bool(row(found, "users", "shared")["passed_on"]["same_bytes"]))


def innocent_code(found: Found) -> str:
    codes = {
        kind: {name: call["code"] for name, call in one["innocent_calls"].get("calls", {}).items() if name != "cuInit"}
        for kind, one in faults(found, "one_server").items()
    }
    wanted = {kind: one["fault"]["code"] for kind, one in faults(found, "one_server").items()}
    other = {kind: seen for kind, seen in codes.items() if set(seen.values()) != {wanted[kind]}}
    return "same" if not other else f"other codes: {json.dumps(other)}"


def not_ready_from_cuinit(found: Found) -> str:
    first = next(iter(faults(found, "one_server").values()))
    if first["newcomer_while_both_live"] != 807:
        return f"no 807 but {first['newcomer_while_both_live']}"
    return f"{first['newcomer_refused_by']}" if first["refused_tries_cuInit_again"] == 0 else "cuInit, and not again"


def rebuild(found: Found) -> float:
    return median(float(one["seconds_until_active"]) * 1000 for one in faults(found, "two_servers").values())


def server_init(found: Found) -> float:
    return min(float(start["seconds"]) * 1000 for start in rows(found, "two_servers")["servers"])


def start_ms(call: str) -> Callable[[Found], float]:
    def measure(found: Found) -> float:
        starts = row(found, "costs", "mps")["start_us"]
        return median(float(one[call]) for one in starts if call in one) / 1000

    return measure


def context_memory(found: Found) -> float:
    return float(row(found, "costs", "mps")["context_mib"])


def xid_delay(found: Found) -> str:
    for kind, one in ((kind, row(found, "sightings", f"mps/{kind}")) for kind in SERVER_LOSING):
        for source in ("events", "kernel_log"):
            if not one[source]["seen"]:
                return f"{kind}: nothing in {source} {one[source]['trouble']}".rstrip()
            if one[source]["seen"][0]["ms"] > PROMPT_MS:
                return f"{kind}: {source} after {one[source]['seen'][0]['ms']:.0f} ms"
        if one["kernel_log"]["seen"][0]["pid_of"] != "culprit":
            return f"{kind}: names {one['kernel_log']['seen'][0]['pid_of']}"
    return "at once"


def killed_busy_client(found: Found) -> str:
    return "nobody" if not any(call.get("code") for call in row(found, "ending", "SIGKILL")["bystander"]) else "others"


def server_killed(found: Found) -> Any:
    last = row(found, "ending", "SIGKILL server")["bystander"][-1]
    return last.get("code", last.get("gone"))


def control_killed(found: Found) -> str:
    calls = row(found, "ending", "SIGKILL control daemon")["bystander"]
    return "unharmed" if all(call.get("code") == 0 for call in calls) else "harmed"


def torn_stores(found: Found) -> str:
    seen = row(found, "in_flight", "trap")
    return (
        "goes on"
        if seen["wrote_later"]
        else "stops"
        if seen["seeds"] != [seen["launched"]["launched"]]
        else "completes"
    )


def assert_xid(found: Found) -> int:
    seen = row(found, "sightings", "mps/assert")["events"]["seen"]
    return int(seen[0]["xid"]) if seen else 0


def client_limit(found: Found) -> int:
    told = rows(found, "limits")
    if "refused_with" not in told:
        raise Unseen(f"limits: {told.get('accepted')} clients, and none was refused")
    return int(told["accepted"])


def terminated_client(found: Found) -> str:
    return "listed" if row(found, "ending", "terminate_client")["still_listed"] else "process"


def context_ids(found: Found) -> str:
    lines = [line for one in faults(found, "one_server").values() for line in one["logged"] if "is ACTIVE" in line]
    ids = {match[1] for line in lines if (match := re.search(r"\{(?:PID: )?\d+, (?:Context ID: )?(\d+)\}", line))}
    if not ids:
        raise Unseen("one_server: server.log names no contexts")
    return "per process" if ids == {"1"} else f"others: {', '.join(sorted(ids)[:9])}"


def fresh_memory(found: Found) -> str:
    seen = list(rows(found, "zeroing").values())
    if "shared" in found.get("users", {}).get("found", {}):  # another user's memory, where the run could ask
        seen.append(found["users"]["found"]["shared"]["fresh_memory_of_another_user"])
    return "zero" if not any(one["dirty"] for one in seen) else "old bytes"


def standby_elsewhere(found: Found) -> str:
    told = rows(found, "standby").values()
    return yes(all(one["same_addresses"] and one["kept_bytes_same"] and one["first_step"]["code"] == 0 for one in told))


def kill_orders(found: Found) -> str:
    hurt = [
        order
        for order, tries in rows(found, "kill_orders").items()
        if any(one["co_runner"] != "right" for one in tries)
    ]
    return "nobody" if not hurt else f"others with {', '.join(hurt)}"


def exactly(seen: Any, assumed: Any) -> bool:
    return bool(seen == assumed)


def at_least(seen: Any, assumed: Any) -> bool:
    """For times: a busy machine adds to what the profile makes the simulator wait."""
    return bool(seen >= assumed)


@dataclass(frozen=True, slots=True)
class Verdict:
    measure: Callable[[Found], Any]
    agrees: Callable[[Any, Any], bool] = exactly


VERDICTS = {
    "raw_fd_keeps_memory": Verdict(raw_fd_keeps_memory),
    "memory_survives_server_fault": Verdict(memory_survives_server_fault),
    "import_across_servers": Verdict(import_across_servers),
    "two_servers_one_gpu": Verdict(two_servers_one_gpu),
    "fault_codes": Verdict(fault_codes),
    "rare_fault_codes": Verdict(rare_fault_codes),
    "recovery_action": Verdict(recovery_action),
    "innocent_code": Verdict(innocent_code),
    "not_ready_from_cuinit": Verdict(not_ready_from_cuinit),
    "rebuild": Verdict(rebuild, at_least),
    "server_init": Verdict(server_init, at_least),
    "cuinit": Verdict(start_ms("cuInit"), at_least),
    "context": Verdict(start_ms("cuDevicePrimaryCtxRetain"), at_least),
    "context_memory": Verdict(context_memory),
    "xid_delay": Verdict(xid_delay),
    "killed_busy_client": Verdict(killed_busy_client),
    "kill_orders": Verdict(kill_orders),
    "server_killed": Verdict(server_killed),
    "control_killed": Verdict(control_killed),
    "torn_stores": Verdict(torn_stores),
    "assert_xid": Verdict(assert_xid),
    "client_limit": Verdict(client_limit),
    "other_uid": Verdict(other_uid),
    "fault_across_users": Verdict(fault_across_users),
    "fd_across_users": Verdict(fd_across_users),
    "terminated_client": Verdict(terminated_client),
    "context_ids": Verdict(context_ids),
    "fresh_memory": Verdict(fresh_memory),
    "standby_elsewhere": Verdict(standby_elsewhere),
}
"""By name of the assumption."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """`agrees` is None where the run does not say; `why` then has the reason."""

    name: str
    id: str
    assumed: Any
    seen: Any
    agrees: bool | None
    why: str = ""


def usable(found: Found) -> None:
    """Raises Unseen when the run's first process could not use the GPU at all: whatever failed after it says nothing."""
    code = (found.get("environment", {}).get("found") or {}).get("plain", {}).get("code", 0)
    if code:
        raise Unseen(f"environment: no process can use the GPU (CUDA error {code})")


def outcome(name: str, found: Found) -> Outcome:
    assumption = profile.load()[name]
    try:
        usable(found)
        seen = VERDICTS[name].measure(found)
    except Unseen as unseen:
        return Outcome(name=name, id=assumption.id, assumed=assumption.value, seen=None, agrees=None, why=str(unseen))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return Outcome(name=name, id=assumption.id, assumed=assumption.value, seen=None, agrees=None,
                       why=f"the findings lack what it needs: {error!r}")  # fmt: skip
    agrees = VERDICTS[name].agrees(seen, assumption.value)
    return Outcome(name=name, id=assumption.id, assumed=assumption.value, seen=seen, agrees=agrees)


def outcomes(found: Found) -> list[Outcome]:
    return [outcome(name, found) for name in VERDICTS]


def main(path: Path) -> None:
    found = json.loads(path.read_text())["experiments"]
    for one in outcomes(found):
        word = {True: "as assumed", False: "OTHERWISE", None: "not seen"}[one.agrees]
        print(
            f"{word:<11} {one.id:<4} {one.name}: {one.why or one.seen}"
            + (f" (assumed {one.assumed})" if one.agrees is False else "")
        )
    path.with_name("hypotheses.json").write_text(json.dumps([asdict(one) for one in outcomes(found)], indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
