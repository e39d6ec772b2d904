"""`sm-partition create|delete|list` of protocol 3: static SM partitions without a daemon option, by name.

Source: documented, not recorded, as in mps_v3_commands.py. The bookkeeping is that of mps_partitions.py.

On failure: an answer in words, nothing changes.
"""

from __future__ import annotations

from . import mps_v3, mps_wire
from .mps_v3_forms import find_server, gpus, mine, sizes, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_daemon import Control
    from .mps_v3 import Names
    from .mps_v3_forms import Options

COLUMNS = (
    "server",
    "device",
    "name",
    "chunks",
    "sm-count",
    "include-remainder",
    "status",
    "visible-uuid",
)


def _device(control: Control, names: Names, server: str, text: str) -> str:
    """The UUID of a device by ordinal or UUID; empty after saying that there is none."""
    uuids = [gpu.uuid for gpu in gpus(names, server)]
    found = uuids[int(text)] if text.isdigit() and int(text) < len(uuids) else text if text in uuids else ""
    if not found:
        control.say(f"Device {text} not found")
    return found


def _free(control: Control, gpu: str) -> int:
    total, size = sizes()
    return total // size - sum(control.partitions.of.get(gpu, {}).values())


def _tell(control: Control) -> None:
    for child in control.servers.values():
        mps_wire.send(child.link, mps_wire.words("partitions", list=control.partitions.names()))


def create(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name, chunks = plain[0] if plain else "", options.get("chunks", "")
    child = find_server(control, options.get("server", ""))
    if child is None or not mine(control, child.uid):
        return
    gpu = _device(control, names, child.name, options.get("device", ""))
    if not gpu:
        return
    if not mps_v3.good_name(name) or (child.name, gpu, name) in names.partitions:
        control.say(f"SM partition '{name}' cannot be created: its name is bad or taken")
    elif child.count:
        control.say(f"SM partition '{name}' cannot be created: device {gpu} has clients")
    elif not chunks.isdigit() or not 1 <= int(chunks) <= _free(control, gpu):
        control.say(f"{chunks or 'No'} chunks are not to be had: {_free(control, gpu)} are free")
    else:
        ident = control.partitions.add(gpu, int(chunks))
        names.partitions[child.name, gpu, name] = ident
        control.say(f"SM partition '{name}' created on device {gpu} (sm-count={int(chunks) * sizes()[1]})")
        control.say(f"CUDA_MPS_SM_PARTITION={gpu}/{ident}")
        _tell(control)


def delete(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name = plain[0] if plain else ""
    child = find_server(control, options.get("server", ""))
    if child is None or not mine(control, child.uid):
        return
    gpu = _device(control, names, child.name, options.get("device", ""))
    ident = names.partitions.get((child.name, gpu, name)) if gpu else None
    if gpu and ident is None:
        control.say(f"SM partition '{name}' not found")
    elif ident is not None and child.count:
        control.say(f"SM partition '{name}' cannot be deleted: device {gpu} has clients")
    elif ident is not None:
        del names.partitions[child.name, gpu, name]
        control.partitions.of[gpu].pop(ident, None)
        control.say(f"SM partition '{name}' deleted from device {gpu}")
        _tell(control)


def listing(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """The partitions, and for each device what nobody has claimed."""
    size, rows = sizes()[1], list[tuple[str, ...]]()
    for child in control.servers.values():
        if options.get("server", child.name) != child.name:
            continue
        for gpu in (one.uuid for one in gpus(names, child.name)):
            if options.get("device", gpu) != gpu:
                continue
            for (server, device, name), ident in names.partitions.items():
                if (server, device) == (child.name, gpu):
                    chunks = control.partitions.of[gpu][ident]
                    rows.append((server, gpu, name, str(chunks), str(chunks * size), "false", "created", ident))
            if free := _free(control, gpu):
                rows.append((child.name, gpu, "-", str(free), str(free * size), "-", "unallocated", "-"))
    table(control, COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows], options)
