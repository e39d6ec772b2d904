"""What a verdict stands on: entries that got far enough, and processes that were what it takes them for.

`Unseen` is the only way to say that a run does not tell. A row proves what its processes were before anything happened to them: started
without an error, clients of an MPS server that was ready (attribute 133, the server's own state and process id), or outside MPS.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Found = Mapping[str, Any]
"""The part `experiments` of results.json."""


class Unseen(Exception):
    """The run does not say."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """`missing`: the parts that the run does not tell; `unproven`: why this may not count as a confirmation."""

    value: Any
    missing: tuple[str, ...] = ()
    unproven: str = ""


def rows(found: Found, experiment: str) -> dict[str, Any]:
    """What an experiment found."""
    told: dict[str, Any] = found.get(experiment, {}).get("found") or {}
    if not told or "skipped" in told:
        raise Unseen(f"{experiment}: {told.get('skipped') or found.get(experiment, {}).get('how', 'was not run')}")
    return told


def row(found: Found, experiment: str, name: str) -> dict[str, Any]:
    """One entry of what it found, of which nothing went wrong."""
    told = rows(found, experiment)
    if name not in told:
        raise Unseen(f"{experiment}: did not get to {name}")
    entry: dict[str, Any] = told[name]
    if why := entry.get("failed") or entry.get("skipped"):
        raise Unseen(f"{experiment}: {name}: {why}")
    return entry


def faulted(found: Found, experiment: str, name: str) -> dict[str, Any]:
    """An entry whose fault happened, and was heard of."""
    entry = row(found, experiment, name)
    if not entry.get("fault", {}).get("code"):
        raise Unseen(f"{experiment}: {name}: no fault happened: {entry.get('fault')}")
    return entry


def client(told: Mapping[str, Any] | None, name: str, *, mps: bool) -> None:
    """That process was well, and where it is taken to have been."""
    if not told:
        raise Unseen(f"nothing tells what {name} was")
    if told.get("code") != 0:
        raise Unseen(f"{name} was not well before: {told.get('code')}")
    if told.get("mps") != mps:
        raise Unseen(f"{name} was {'no MPS client' if mps else 'not outside MPS'}: attribute 133 was {told.get('mps')}")


def proven(
    entry: Mapping[str, Any], *, mps: Iterable[str] = (), outside: Iterable[str] = (), apart: tuple[str, ...] = ()
) -> None:
    """The entry's processes `mps` were clients of servers that were ready, `outside` were not; those of `apart` had different servers."""
    proof = entry.get("proof") or {}
    clients, servers = proof.get("clients", {}), proof.get("servers", {})
    for name in outside:
        client(clients.get(name), name, mps=False)
    for name in mps:
        client(clients.get(name), name, mps=True)
        server = servers.get(clients[name].get("server"), {})
        if not server.get("ready") or not server.get("pid"):
            raise Unseen(f"the server of {name} was not ready: {server.get('state')}, process {server.get('pid')}")
    pids = [servers[clients[name]["server"]]["pid"] for name in apart]
    if len(set(pids)) != len(pids):
        raise Unseen(f"{' and '.join(apart)} were clients of one and the same server")


def collect(names: Iterable[str], look: Callable[[str], T]) -> tuple[dict[str, T], tuple[str, ...]]:
    """What `look` says of each name, and why it says nothing of the others; Unseen where it says nothing at all."""
    seen, missing = dict[str, T](), list[str]()
    for name in names:
        try:
            seen[name] = look(name)
        except Unseen as unseen:
            missing.append(str(unseen))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            missing.append(f"{name}: the findings lack what it needs: {error!r}")
    if not seen:
        raise Unseen("; ".join(dict.fromkeys(missing)) or "nothing was asked")
    return seen, tuple(dict.fromkeys(missing))


def yes(condition: bool) -> str:
    return "yes" if condition else "no"
