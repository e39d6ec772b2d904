"""What a run says of the ends of clients, servers and daemons, and of who is let in (E13, E19, E20, H9, H10)."""

from typing import Any

from tests.gpu.proof import Found, Measurement, Unseen, client, collect, proven, row, rows

WAYS = ("terminate_client, SIGTERM", "terminate_client, SIGKILL", "SIGTERM", "SIGKILL")
NOT_READY = 600
ORDERS = ("T2", "T3", "T1")


def ended(found: Found, way: str) -> dict[str, Any]:
    entry = row(found, "ending", way)
    proven(entry, mps=("busy", "bystander"))
    return entry


def killed_busy_client(found: Found) -> Measurement:
    calls = ended(found, "SIGKILL")["bystander"]
    return Measurement("nobody" if all(call.get("code") == 0 for call in calls) else "others")


def server_killed(found: Found) -> Measurement:
    last = ended(found, "SIGKILL server")["bystander"][-1]
    return Measurement(last.get("code", last.get("gone")))


def control_killed(found: Found) -> Measurement:
    calls = ended(found, "SIGKILL control daemon")["bystander"]
    return Measurement("unharmed" if all(call.get("code") == 0 for call in calls) else "harmed")


def terminated_client(found: Found) -> Measurement:
    return Measurement("listed" if ended(found, "terminate_client")["still_listed"] else "process")


def tried(found: Found, experiment: str, name: str) -> list[dict[str, Any]]:
    """The tries of one way of ending, each with a busy client that was one."""
    entry = rows(found, experiment).get(name, {})  # tries before one that failed count
    tries: list[dict[str, Any]] = entry.get("tries") or []
    if not tries:
        raise Unseen(f"{experiment}: {name}: {entry.get('failed', 'not tried')}")
    proven(entry, mps=("runner",) if experiment == "kill_orders" else ("neighbour",))
    for one in tries:
        proven(one, mps=("busy",))
    tries = [one for one in tries if one.get("busy_code", NOT_READY) == NOT_READY]
    if not tries:
        raise Unseen(f"{experiment}: {name}: no client was busy any more when it ended")
    return tries


def victims(found: Found, experiment: str, names: tuple[str, ...]) -> Measurement:
    def look(name: str) -> bool:
        tries = tried(found, experiment, name)
        return any(one["hurt"] if "hurt" in one else one["co_runner"] != "right" for one in tries)

    seen, missing = collect(names, look)
    hurt = [name for name, hurts in seen.items() if hurts]
    return Measurement("nobody" if not hurt else f"others with {'; '.join(hurt)}", missing)


def kill_orders(found: Found) -> Measurement:
    return victims(found, "kill_orders", ORDERS)


def endings(found: Found) -> Measurement:
    return victims(found, "endings", WAYS)


def other_uid(found: Found) -> Measurement:
    entry = row(found, "users", "one_at_a_time")
    client(entry["alice"], "Alice", mps=True)
    heard = entry["bob_beside_alice"]["code"]
    return Measurement(
        {807: 0, "waits": 1}.get(heard, f"hears {heard}, attribute 133 {entry['bob_beside_alice']['mps']}")
    )


def client_limit(found: Found) -> Measurement:
    told = rows(found, "limits")
    if "refused_with" not in told:
        raise Unseen(f"limits: {told.get('accepted')} clients, and none was refused")
    unproven = ""
    try:
        proven(told, mps=("first",))
    except Unseen as unseen:
        unproven = f"limits: {unseen}"
    return Measurement(int(told["accepted"]), unproven=unproven)
