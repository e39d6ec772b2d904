"""Ways of having work done beside the plain launch: CUDA graphs, cooperative launches, green contexts (E14).

Each takes a driver with a context and a loaded module, and memory of at least `SIZE` bytes; with `fault` its kernel traps. The answer has
the code of each call, `code` the first that failed, and `not there` where the library lacks a function. Layouts are those of cuda.h 13.0.
"""

import ctypes as c
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tests.gpu.raw import Answer, Driver

SIZE = 2 << 20
WORDS = 4096
BLOCK = 256
MEETING = 8
"""Blocks that wait for each other: every GPU has more SMs."""
RELAXED = 2
"""CU_STREAM_CAPTURE_MODE_RELAXED."""
SM, DEFAULT_STREAM, NON_BLOCKING = 1, 1, 1
"""CU_DEV_RESOURCE_TYPE_SM, CU_GREEN_CTX_DEFAULT_STREAM, CU_STREAM_NON_BLOCKING."""
SMS = 8
"""Of the green context."""
RESOURCE = 256
"""Bytes that hold one CUdevResource (144) and more, should it grow."""
Calls = dict[str, Answer]


def told(calls: Calls, **more: Any) -> dict[str, Any]:
    """The answer of a puppet."""
    row: dict[str, Any] = {
        "code": next((each.code for each in calls.values() if each.code), 0),
        "calls": {name: asdict(each) for name, each in calls.items()},
    }
    if lacking := [name for name, each in calls.items() if each.code == -1]:
        row["not there"] = f"function {lacking[0]} is not there"
    return row | more


def went(calls: Calls, name: str, answer: Answer) -> bool:
    """Note the answer; go on?"""
    calls[name] = answer
    return answer.code == 0


def work(driver: Driver, address: int, fault: bool) -> Answer:
    if fault:
        return driver.launch("trap", 1, 1)
    return driver.launch(
        "fill_pattern", WORDS // BLOCK, BLOCK, c.c_ulonglong(address), c.c_longlong(WORDS), c.c_ulonglong(5)
    )


def graph(driver: Driver, ptx: bytes, address: int, fault: bool) -> dict[str, Any]:
    """A captured launch, replayed three times."""
    calls: Calls = {}
    made, ready = c.c_void_p(), c.c_void_p()
    call = driver.call
    if not went(calls, "cuStreamBeginCapture_v2", call("cuStreamBeginCapture_v2", driver.stream, RELAXED)):
        return told(calls)
    captured = went(calls, "launch", work(driver, address, fault))
    if (
        went(calls, "cuStreamEndCapture", call("cuStreamEndCapture", driver.stream, c.byref(made)))
        and captured
        and went(calls, "cuGraphInstantiateWithFlags", call("cuGraphInstantiateWithFlags", c.byref(ready), made, c.c_ulonglong(0)))
    ):  # fmt: skip
        for _ in range(3):
            went(calls, "cuGraphLaunch", call("cuGraphLaunch", ready, driver.stream))
        calls["sync"] = driver.sync()
    return told(calls)


def cooperative(driver: Driver, ptx: bytes, address: int, fault: bool) -> dict[str, Any]:
    """Blocks that wait for each other; `met` says whether all of them came through."""
    calls: Calls = {}
    words = c.c_size_t(MEETING)
    if not went(calls, "cuMemsetD32_v2", driver.call("cuMemsetD32_v2", c.c_ulonglong(address), c.c_uint(0), words)):
        return told(calls)
    if not went(
        calls, "cuCtxSynchronize", driver.call("cuCtxSynchronize")
    ):  # our stream does not wait for that of the memset
        return told(calls)
    launched = driver.launch("meet", MEETING, 1, c.c_ulonglong(address), c.c_int(fault), cooperative=True)
    if not went(calls, "cuLaunchCooperativeKernel", launched) or not went(calls, "sync", driver.sync()):
        return told(calls)
    calls["read"], data = driver.read(address, 4 * MEETING)
    return told(calls, met=data == b"\2\0\0\0" * MEETING)


def green(driver: Driver, ptx: bytes, address: int, fault: bool) -> dict[str, Any]:
    """A context on a few of the SMs; `sms` says how many it was given."""
    calls: Calls = {}
    call, whole, part, rest = driver.call, *(c.create_string_buffer(RESOURCE) for _ in range(3))
    groups, described, context, current = c.c_uint(1), c.c_void_p(), c.c_void_p(), c.c_void_p()
    stream = c.c_void_p()
    steps: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("cuDeviceGetDevResource", (0, whole, SM)),
        ("cuDevSmResourceSplitByCount", (part, c.byref(groups), whole, rest, c.c_uint(0), c.c_uint(SMS))),
        ("cuDevResourceGenerateDesc", (c.byref(described), part, c.c_uint(1))),
        ("cuGreenCtxCreate", (c.byref(context), described, 0, c.c_uint(DEFAULT_STREAM))),
        ("cuCtxFromGreenCtx", (c.byref(current), context)),
        ("cuGreenCtxStreamCreate", (c.byref(stream), context, c.c_uint(NON_BLOCKING), 0)),
        ("cuCtxSetCurrent", (current,)),
    )
    for name, arguments in steps:
        if not went(calls, name, call(name, *arguments)):
            return told(calls)
    sms = int.from_bytes(part.raw[96:100], "little")
    before = driver.context, driver.stream, driver.module
    driver.context, driver.stream, driver.module = current, stream, c.c_void_p()
    try:
        if went(calls, "cuModuleLoadData", driver.load(ptx)) and went(calls, "launch", work(driver, address, fault)):
            calls["sync"] = driver.sync()
    finally:
        driver.context, driver.stream, driver.module = before
        calls["back"] = call("cuCtxSetCurrent", driver.context)
    return told(calls, sms=sms)


WAYS: dict[str, Callable[[Driver, bytes, int, bool], dict[str, Any]]] = {
    "graph": graph,
    "cooperative": cooperative,
    "green": green,
}
