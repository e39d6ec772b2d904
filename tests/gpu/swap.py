"""Stand-in pages below a captured graph, swapped for other memory: what a standby would rehearse on before it is promoted (E25).

One page is mapped again and again at the addresses of the kept memory; a graph is captured and run there; then the page goes and the kept
memory comes to the same addresses. Layouts and calls are those of cuda.h 13.0.
"""

import ctypes as c
import hashlib
from typing import Any

from tests.gpu.features import BLOCK, RELAXED, Calls, told
from tests.gpu.raw import Driver

SEED = 5


def bad(calls: Calls) -> bool:
    return any(each.code for each in calls.values())


def captured(driver: Driver, address: int, size: int, calls: Calls) -> c.c_void_p:
    """A graph with one launch that fills the range."""
    made, ready, words = c.c_void_p(), c.c_void_p(), size // 8
    call = driver.call
    calls["capture"] = call("cuStreamBeginCapture_v2", driver.stream, RELAXED)
    calls["launch"] = driver.launch(
        "fill_pattern", -(-words // BLOCK), BLOCK, c.c_ulonglong(address), c.c_longlong(words), c.c_ulonglong(SEED)
    )
    calls["end"] = call("cuStreamEndCapture", driver.stream, c.byref(made))
    if not bad(calls):
        calls["instantiate"] = call("cuGraphInstantiateWithFlags", c.byref(ready), made, c.c_ulonglong(0))
    return ready


def replay(driver: Driver, ready: c.c_void_p, calls: Calls, name: str) -> None:
    calls[f"{name} launch"] = driver.call("cuGraphLaunch", ready, driver.stream)
    calls[f"{name} sync"] = driver.sync()


def digest(driver: Driver, address: int, size: int, calls: Calls, name: str) -> str:
    calls[name], data = driver.read(address, size)
    return hashlib.sha256(data).hexdigest()


def stand_in(driver: Driver, size: int, calls: Calls, hint: int = 0) -> int:
    """An address (`hint` where the driver agrees) whose every page is one and the same page; 0 where a call failed."""
    page_size = driver.granularity()
    page = calls["create"] = driver.create(page_size)
    reserved = calls["reserve"] = driver.reserve(size, hint)
    for offset in range(0, size, page_size or size):
        if bad(calls):
            return 0
        calls["stand-in map"] = driver.place(reserved.value + offset, page.value, page_size)
    if not bad(calls):
        calls["stand-in access"] = driver.open(reserved.value, size)
    return 0 if bad(calls) else reserved.value


def put_below(driver: Driver, address: int, kept: int, size: int, calls: Calls) -> float:
    """The page goes, the kept memory comes; microseconds that it took."""
    swapped: Calls = {"unmap": driver.unmap(address, size)}
    swapped |= {f"kept {name}": each for name, each in driver.map_at(address, kept, size).items()}
    calls |= swapped
    return sum(each.us for each in swapped.values())


def swap(driver: Driver, fd: int, size: int) -> dict[str, Any]:
    """`kept_before` and `kept_after`: the kept memory's digests when it came, and after the graph ran on it."""
    calls: Calls = {"import": driver.import_fd(fd)}
    at = stand_in(driver, size, calls)
    if bad(calls):
        return told(calls)
    ready = captured(driver, at, size, calls)
    if bad(calls):
        return told(calls)
    replay(driver, ready, calls, "rehearsal")
    us = put_below(driver, at, calls["import"].value, size, calls)
    if bad(calls):
        return told(calls)
    before = digest(driver, at, size, calls, "read before")
    replay(driver, ready, calls, "promoted")
    after = digest(driver, at, size, calls, "read after")
    return told(calls, kept_before=before, kept_after=after, swap_us=us)
