"""What NVIDIA's numbers and messages mean, loaded once: Xids, CUDA errors, recovery actions, MPS messages.

The rows are data with a source each (`*.toml` beside this file); the code that acts on them is classify.py and
parse/mpslog.py. A broken table is a broken installation and raises. A number without a row is not an error: the callers
get None and treat it as unknown, which is a case of its own.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from resilience.model.fault import DeviceState, Fault, FaultClass, Reach
from resilience.model.mpslog import LogKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaRow:
    name: str
    fault: Fault
    sticky: bool
    """True: the process cannot use the GPU again and must be started anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRow:
    kind: LogKind
    pattern: str
    dialects: tuple[str, ...]
    sample: str
    source: str


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__name__) / name).read_text(encoding="utf-8"))


def _fault(row: dict[str, Any], *, xid: int = 0, cuda: int = 0) -> Fault:
    return Fault(
        kind=FaultClass(row["class"]),
        device=DeviceState(row["device"]),
        reach=Reach(row["reach"]),
        xid=xid,
        cuda=cuda,
        words=row["words"],
    )


@cache
def xids() -> dict[int, Fault]:
    """Xid number → what it is."""
    return {int(number): _fault(row, xid=int(number)) for number, row in _table("xid.toml")["xid"].items()}


@cache
def recovery_actions() -> dict[int, DeviceState]:
    """GPU recovery action (Xid 154, NVML field 230) → what it asks of the device."""
    return {int(number): DeviceState(row["device"]) for number, row in _table("xid.toml")["recovery"].items()}


@cache
def cuda_errors() -> dict[int, CudaRow]:
    """CUresult → what it is."""
    rows = _table("cuda.toml")["cuda"].items()
    return {
        int(code): CudaRow(name=row["name"], fault=_fault(row, cuda=int(code)), sticky=row["sticky"])
        for code, row in rows
    }


@cache
def messages() -> tuple[MessageRow, ...]:
    """The messages of the MPS logs, in the order in which they are tried."""
    return tuple(
        MessageRow(
            kind=LogKind(row["kind"]),
            pattern=row["pattern"],
            dialects=tuple(row["dialects"]),
            sample=row["sample"],
            source=row["source"],
        )
        for row in _table("mps_log.toml")["message"]
    )
