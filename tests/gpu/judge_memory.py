"""What a run says of kept memory and of who takes it over: H1 to H3, E9, E11, E19's descriptors, E24, E25."""

from collections.abc import Mapping
from typing import Any

from tests.gpu.proof import Found, Measurement, Unseen, client, collect, faulted, proven, row, rows, yes

MAKERS = ("made_by_client", "made_outside")
KINDS = ("trap", "illegal-write")
READERS = {"other_server": True, "outside_mps": False, "recovered_server": True}
"""Of a row of `kept_memory`: is it a client?"""


def right(told: Mapping[str, Any] | None, entry: Mapping[str, Any]) -> bool:
    """Did that reader find the bytes of before?"""
    return bool(told and told.get("digest", {}).get("sha256") == entry["before"])


def reading(entry: Mapping[str, Any], reader: str, *, mps: bool) -> Mapping[str, Any]:
    """What a reader told that was well, and where it is taken to have been."""
    told: Mapping[str, Any] = entry.get(reader) or {}
    if why := told.get("no_reader") or told.get("gone"):
        raise Unseen(f"{reader}: {why}")
    client(told.get("client"), reader, mps=mps)
    return told


def refused(told: Mapping[str, Any]) -> int:
    """The code with which a reader could not have the memory at all."""
    return int(told.get("import") or told.get("map") or 0)


def readable(entry: Mapping[str, Any]) -> None:
    """Lost memory is lost only where it could be read while its maker lived."""
    if not right(entry["while_maker_lives"], entry):
        raise Unseen("not even while its maker lived could another process read the memory")


def raw_fd_keeps_memory(found: Found) -> Measurement:
    def look(name: str) -> bool:
        entry = row(found, "kept_memory", name)
        proven(entry, **{"outside" if name.startswith("outside/") else "mps": ("client",)})
        if right(reading(entry, "outside_mps", mps=False), entry):
            return True
        readable(entry)
        return False

    seen, missing = collect(("outside/SIGKILL", *(f"{made}/SIGKILL" for made in MAKERS)), look)
    return Measurement(yes(all(seen.values())), missing)


def memory_survives_server_fault(found: Found) -> Measurement:
    """A reader that is not allowed to have the memory says nothing of it (that is H3), unless nobody is."""
    shut = list[str]()

    def look(name: str) -> bool:
        maker, kind, reader = name.split()
        entry = faulted(found, "kept_memory", f"{maker}/{kind}")
        proven(entry, mps=("client",))
        if reader == "other_server":
            proven(entry, mps=(reader,), apart=("client", reader))
        told = reading(entry, reader, mps=READERS[reader])
        if right(told, entry):
            return True
        readable(entry)
        if code := refused(told):
            shut.append(name)
            raise Unseen(f"kept_memory: {maker}/{kind}: {reader} cannot import it: CUDA error {code}")
        return False

    names = [f"{maker} {kind} {reader}" for maker in MAKERS for kind in KINDS for reader in READERS]
    try:
        seen, missing = collect(names, look)
    except Unseen as unseen:
        if shut:
            return Measurement("no", (str(unseen),))
        raise
    return Measurement(yes(all(seen.values())), missing)


def import_across_servers(found: Found) -> Measurement:
    def look(name: str) -> bool:
        entry = rows(found, "kept_memory").get(f"{name}/SIGKILL", {})
        if name == "made_outside" and "import_by_client" in entry:
            proven(entry, mps=("client",))
            return bool(entry["import_by_client"] == 0)
        entry = row(found, "kept_memory", f"{name}/SIGKILL")
        proven(entry, mps=("client", "other_server"), apart=("client", "other_server"))
        told = reading(entry, "other_server", mps=True)
        if not right(told, entry) and not right(entry.get("outside_mps"), entry):
            raise Unseen(f"kept_memory: {name}/SIGKILL: nobody could read the memory")
        return right(told, entry)

    seen, missing = collect(MAKERS, look)
    if all(seen.values()) and "made_by_client" not in seen:
        raise Unseen("; ".join(missing))
    return Measurement(yes(all(seen.values())), missing)


def taken_over(found: Found, place: str, *, mps: bool) -> Measurement:
    """Rows of `standby` whose standby waited there."""

    def look(name: str) -> bool:
        entry = faulted(found, "standby", name)
        proven(entry, mps=("active", "culprit"), outside=() if mps else ("standby",))
        if mps:
            proven(entry, mps=("standby",), apart=("active", "standby"))
        if not entry["active_heard"].get("code"):
            raise Unseen(f"standby: {name}: the fault did not reach the active process")
        if not entry["before"]:
            raise Unseen(f"standby: {name}: nothing was kept")
        right: bool = entry["same_addresses"] and entry["untouched"] and entry["kept_bytes_same"]
        steps = ("rehearsal", "give_way", "copy", "first_step")
        return right and all(entry[step].get("code") == 0 for step in steps)

    names = [name for name in rows(found, "standby") if name.startswith(f"{place}/")]
    if not names:
        raise Unseen(f"standby: {found['standby'].get('how')}, and no row with a standby {place}")
    seen, missing = collect(names, look)
    return Measurement(yes(all(seen.values())), missing)


def standby_elsewhere(found: Found) -> Measurement:
    return taken_over(found, "spare server", mps=True)


def standby_outside(found: Found) -> Measurement:
    return taken_over(found, "outside MPS", mps=False)


def fresh_memory(found: Found) -> Measurement:
    def look(name: str) -> bool:
        if name == "users":  # another user's memory, where the run could ask
            told = row(found, "users", "shared")["fresh_memory_of_another_user"]
            for each in told["clients"]:
                client(each, f"user {each.get('uid')}", mps=True)
        else:
            told = row(found, "zeroing", name)
            proven(told, **{"mps" if name == "mps" else "outside": ("first", "second")})
        if not told["peeks"] or told["codes"] != [0]:
            raise Unseen(f"zeroing: {name}: the memory could not be read: {told['codes']}")
        return bool(told["dirty"])

    seen, missing = collect(("outside", "mps", "users"), look)
    return Measurement("old bytes" if any(seen.values()) else "zero", missing)


def fd_across_users(found: Found) -> Measurement:
    entry = row(found, "users", "shared")
    for each in entry["clients_at_first"]:
        client(each, f"user {each.get('uid')}", mps=True)
    if why := entry["passed_on"].get("failed"):
        raise Unseen(f"users: {why}")
    return Measurement(yes(bool(entry["passed_on"]["same_bytes"])))


def stand_in_graph(found: Found) -> Measurement:
    def look(name: str) -> bool:
        entry = row(found, "stand_in", name)
        proven(entry, **{"mps" if name == "mps" else "outside": ("maker", "standby")})
        swap = entry["swap"]
        if swap["code"] and "kept_before" not in swap:
            raise Unseen(
                f"stand_in: {name}: {next(call for call, each in swap['calls'].items() if each['code'])} fails"
            )
        if entry["right_before"] == entry["right_after"]:
            raise Unseen(f"stand_in: {name}: nothing to tell the two states by")
        wanted = entry["right_before"], entry["right_after"], entry["right_after"]
        return (swap["kept_before"], swap["kept_after"], entry["maker_sees"]) == wanted

    seen, missing = collect(("outside", "mps"), look)
    return Measurement(yes(all(seen.values())), missing)


def torch_trains_on(found: Found) -> Measurement:
    entry = row(found, "torch", "training")
    in_mps = "fault" in entry
    names = ("trainer", "reader", "undisturbed")
    proven(entry, **{"mps" if in_mps else "outside": names})
    if in_mps:
        proven(entry, mps=("trainer", "reader"), apart=("trainer", "reader"))
        proven({"proof": entry["culprit"]}, mps=("culprit",))
    if not entry["torch_said"].get("raised"):
        raise Unseen("torch: the fault did not reach the trainer")
    if entry["before"]["sha256"] != entry["undisturbed_half"]["sha256"]:
        raise Unseen("torch: two undisturbed runs differ: nothing to compare with")
    right = (
        entry["after"]["first"] == entry["before"]["last"]
        and entry["after"]["sha256"] == entry["undisturbed"]["sha256"]
    )
    return Measurement("to the bit" if right else "differs", () if in_mps else ("no MPS: the trainer faulted itself",))


def cupy_kernels(found: Found) -> Measurement:
    def look(name: str) -> bool:
        entry = row(found, "cupy", name)
        proven(entry, **{"mps" if name == "mps" else "outside": ("program",)})
        proven({"proof": entry["reader"]}, **{"mps" if name == "mps" else "outside": ("reader",)})
        return bool(entry["kernel"]["same_pointer"] and entry["digest"] == entry["right"])

    seen, missing = collect(("outside", "mps"), look)
    return Measurement(yes(all(seen.values())), missing)
