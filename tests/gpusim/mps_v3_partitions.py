"""`sm-partition create|delete|list` of protocol 3: static SM partitions without a daemon option, by name.

Source: documented, not recorded, as in mps_v3_commands.py. The bookkeeping is that of mps_partitions.py.

A partition for a server that is known but not running yet (mps_v3.py says when) is recorded, `configured`, and made at the server's first
`Ready`: before its first client. One that cannot be made then stays configured, and control.log says why. `--include-remainder` is kept
and shown only: the document does not say which SMs remain, and its examples have partitions of more SMs than their chunks
with `false`. Names are as strict as those of servers, and a partition in use is not deleted: both ours.

On failure: an answer in words, nothing changes.
"""

from __future__ import annotations

from . import mps_v3, mps_wire
from .mps_v3_forms import gpus, own_server, sizes, table, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_daemon import Control
    from .mps_spawn import Child
    from .mps_v3 import Names, Partition
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


def _uuid(names: Names, server: str, text: str) -> str:
    """The UUID of a device of the server by ordinal or UUID; empty where there is none."""
    uuids = [gpu.uuid for gpu in gpus(names, server)]
    return uuids[int(text)] if text.isdigit() and int(text) < len(uuids) else text if text in uuids else ""


def _free(control: Control, gpu: str) -> int:
    total, size = sizes()
    return total // size - sum(control.partitions.of.get(gpu, {}).values())


def _obstacle(control: Control, names: Names, gpu: str, chunks: int) -> str:
    """Why that many chunks cannot be had of the GPU now, in words: clients of any server are on it, or too few are left."""
    for child in control.servers.values():
        if child.count and any(one.uuid == gpu for one in gpus(names, child.name)):
            return f"device {gpu} has clients"
    return f"{chunks} chunks are not to be had: {_free(control, gpu)} are free" if chunks > _free(control, gpu) else ""


def _tell(control: Control) -> None:
    for child in control.servers.values():
        mps_wire.send(child.link, mps_wire.words("partitions", list=control.partitions.names()))


def apply(control: Control, names: Names, child: Child) -> None:
    """Make what has been configured for a server that has just started."""
    for (server, gpu, name), partition in names.partitions.items():
        if server != child.name:
            continue
        if why := _obstacle(control, names, gpu, partition.chunks):
            control.log.note(f"SM partition '{name}' cannot be created: {why}")
        else:
            partition.ident = control.partitions.add(gpu, partition.chunks)
    _tell(control)


def create(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name, chunks = plain[0] if plain else "", options.get("chunks", "")
    remainder = truth(options.get("include-remainder", "false"))
    child = own_server(control, names, options.get("server", ""))
    if child is None:
        return
    gpu = _uuid(names, child.name, options.get("device", ""))
    number = int(chunks) if chunks.isdigit() else 0
    if not gpu:
        why = f"device {options.get('device', '')} not found"
    elif not mps_v3.good_name(name) or (child.name, gpu, name) in names.partitions:
        why = "its name is bad or taken"
    elif number < 1:
        why = f"chunks must be a positive integer, not {chunks or 'missing'}"
    elif remainder is None:
        why = f"include-remainder must be true or false, not {options['include-remainder']}"
    elif names.servers[child.name].locality:
        why = f"server {child.name} has locality domains"
    else:
        why = "" if child.state == "INITIALIZING" else _obstacle(control, names, gpu, number)
    if why:
        control.say(f"SM partition '{name}' cannot be created: {why}")
        return
    made = names.partitions[child.name, gpu, name] = mps_v3.Partition(number, bool(remainder))
    if child.state == "INITIALIZING":
        control.say(f"SM partition '{name}' recorded for device {gpu}: server {child.name} is not running yet")
        return
    made.ident = control.partitions.add(gpu, number)
    control.say(f"SM partition '{name}' created on device {gpu} (sm-count={number * sizes()[1]})")
    control.say(f"CUDA_MPS_SM_PARTITION={gpu}/{made.ident}")
    _tell(control)


def delete(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name = plain[0] if plain else ""
    child = own_server(control, names, options.get("server", ""))
    if child is None:
        return
    gpu = _uuid(names, child.name, options.get("device", ""))
    if (child.name, gpu, name) not in names.partitions:
        control.say(f"SM partition '{name}' not found")
    elif child.count:
        control.say(f"SM partition '{name}' cannot be deleted: device {gpu} has clients")
    else:
        control.partitions.of.get(gpu, {}).pop(names.partitions.pop((child.name, gpu, name)).ident, None)
        control.say(f"SM partition '{name}' deleted from device {gpu}")
        _tell(control)


def _row(server: str, gpu: str, name: str, partition: Partition) -> tuple[str, ...]:
    status = "created" if partition.ident else "configured"
    remainder = str(partition.remainder).lower()
    size = str(partition.chunks * sizes()[1])
    return server, gpu, name, str(partition.chunks), size, remainder, status, partition.ident or "-"


def listing(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """The partitions, and for each device what nobody has claimed; `--all` adds nothing to that."""
    rows = list[tuple[str, ...]]()
    for child in control.servers.values():
        if options.get("server", child.name) != child.name:
            continue
        only = _uuid(names, child.name, options.get("device", ""))
        for gpu in (one.uuid for one in gpus(names, child.name)):
            if "device" in options and gpu != only:
                continue
            for (server, device, name), partition in names.partitions.items():
                if (server, device) == (child.name, gpu):
                    rows.append(_row(server, gpu, name, partition))
            if free := _free(control, gpu):
                rows.append((child.name, gpu, "-", str(free), str(free * sizes()[1]), "-", "unallocated", "-"))
    table(control, COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows], options)
