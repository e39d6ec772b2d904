"""How a puppet commits each kind of fault, and what a healthy one does meanwhile."""

import os
from collections.abc import Callable
from typing import Any

from tests.gpu.raw import READ
from tests.gpu.stage import Unhealthy
from tests.gpu.strings import Puppet, PuppetGone

WILD = 0x7F12_3456_0000
"""An address that nobody maps."""
FAR = 1 << 24
"""Words behind the start of a block's shared memory: 64 MiB, more than any GPU has."""
DEEP = 1 << 20
"""Calls within a call: each takes more than 256 bytes of a stack of a few KiB."""
MIB = 1 << 20

KINDS: dict[str, Callable[[Puppet], dict[str, Any]]] = {
    "illegal-write": lambda p: p.ask(
        "launch", kernel="write_address", blocks=1, threads=1, values=[["p", WILD], ["d", 1]]
    ),
    "illegal-read": lambda p: p.ask(
        "launch", kernel="read_address", blocks=1, threads=1, values=[["p", page(p)], ["p", WILD]]
    ),
    "trap": lambda p: p.ask("launch", kernel="trap", blocks=1, threads=1, values=[]),
    "misaligned": lambda p: p.ask("launch", kernel="misaligned", blocks=1, threads=1, values=[["p", page(p)]]),
    "assert": lambda p: p.ask("launch", kernel="assert_positive", blocks=1, threads=1, values=[["i", 0]]),
    "illegal-instruction": lambda p: p.ask(
        "launch", kernel="illegal_instruction", blocks=1, threads=1, values=[["p", page(p)]]
    ),
    "copy-from-nowhere": lambda p: p.ask("copy", target=page(p), source=WILD, size=4096),
}
"""What a program does wrong most often, and the faults that differ most in how a driver hears of them."""
RARE: dict[str, Callable[[Puppet], dict[str, Any]]] = {
    "write-read-only": lambda p: p.ask(
        "launch", kernel="write_address", blocks=1, threads=1, values=[["p", read_only_page(p)], ["d", 1]]
    ),
    "shared-out-of-range": lambda p: p.ask(
        "launch", kernel="shared_out_of_range", blocks=1, threads=1, values=[["i", FAR]]
    ),
    "stack-overflow": lambda p: p.ask(
        "launch", kernel="stack_overflow", blocks=1, threads=1, values=[["p", page(p)], ["i", DEEP]]
    ),
    "bad-branch": lambda p: p.ask("launch", kernel="bad_branch", blocks=1, threads=1, values=[["p", WILD | 0xF0]]),
}
"""The rest of the kinds of fault that a program can commit by itself."""


def page(puppet: Puppet) -> int:
    """Address of fresh memory of the puppet's own, 2 MiB."""
    return int(region(puppet, 2 * MIB)["address"])


def read_only_page(puppet: Puppet) -> int:
    """Address of a second mapping, for reading only, of memory that the puppet can write elsewhere."""
    made = region(puppet, 2 * MIB)
    drop(made)
    if not made["handle"]:
        raise Unhealthy(f"{puppet.name}: cuMemCreate: CUDA error {made['refused']}")
    return int(puppet.ask("map", handle=made["handle"], size=2 * MIB, access=READ)["value"])


def region(puppet: Puppet, size: int, hint: int = 0) -> dict[str, Any]:
    """Memory of the puppet's own: made by the VMM calls, mapped and exported. `fd` is -1 where the export is refused (`export`); where the
    calls themselves are (`refused`) it is plain memory, without a handle."""
    made = puppet.ask("create", size=size)
    fd = (made["fds"] or [-1])[0]
    mapped = puppet.ask("map", handle=made["value"], size=size, hint=hint) if made["code"] == 0 else made
    if mapped["code"] == 0:
        return {
            "code": 0,
            "handle": made["value"],
            "address": mapped["value"],
            "fd": fd,
            "export": made["export"]["code"],
        }
    drop({"fd": fd})
    plain = puppet.ask("alloc", size=size)
    if plain["code"]:
        raise Unhealthy(f"{puppet.name} gets no memory: CUDA error {mapped['code']}, and {plain['code']} without VMM")
    return {
        "code": 0,
        "handle": 0,
        "address": plain["value"],
        "fd": -1,
        "export": mapped["code"],
        "refused": mapped["code"],
    }


def exported(puppet: Puppet, size: int) -> dict[str, Any]:
    """A region that has a descriptor."""
    made = region(puppet, size)
    if made["fd"] < 0:
        raise Unhealthy(f"{puppet.name}: no descriptor of its memory: CUDA error {made['export']}")
    return made


def taken(puppet: Puppet, fd: int, size: int, hint: int = 0) -> int:
    """Import and map; the address."""
    imported = puppet.ask("import", fds=(fd,))
    mapped = imported if imported["code"] else puppet.ask("map", handle=imported["value"], size=size, hint=hint)
    if mapped["code"]:
        raise Unhealthy(
            f"{puppet.name} cannot {'import' if imported['code'] else 'map'} the memory: CUDA error {mapped['code']}"
        )
    return int(mapped["value"])


def drop(made: dict[str, Any]) -> None:
    """Close this process's descriptor of a region, where there is one."""
    if made["fd"] >= 0:
        os.close(made["fd"])


def commit(kind: str, puppet: Puppet) -> dict[str, Any]:
    """Let the puppet fault; what it heard, or how it went."""
    try:
        heard = (KINDS | RARE)[kind](puppet)
        return {"kind": kind, "code": heard["code"], "began": heard["began"], "ended": heard["ended"]}
    except PuppetGone as gone:
        return {"kind": kind, "gone": gone.how}


def heard(puppet: Puppet, verb: str, **values: Any) -> dict[str, Any]:
    """ask, with a death or a hang as an answer."""
    try:
        answer = puppet.ask(verb, **values)
        answer.pop("fds", None)
        return answer
    except PuppetGone as gone:
        return {"gone": gone.how}
