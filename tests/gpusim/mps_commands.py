"""The administrator's commands of the MPS control daemon, v2 interface (535 to 595).

Job: one function per command. Each says its lines through the daemon; one that waits for a server returns that
server's pid.

Source: recordings of real daemons without a GPU (transcripts/) for every answer that involves no server. With
servers: NVIDIA's MPS document (lists of pids, states, `ps` columns, `terminate_client` prints 0 or a CUDA error),
where it is silent our choice, named in the profile.

On failure: nothing here fails; a bad command is answered in words, and the front end's exit status is 0, as with the
real one.
"""

from __future__ import annotations

import os

from . import mps_host, mps_partitions, mps_spawn, mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .mps_daemon import Control
    from .mps_spawn import Child

MIB = 1 << 20
DEVICES = 32
"""Ordinals from here on are refused by the real daemon, which does not ask whether the device exists."""


class Defaults:
    """What the next server starts with."""

    __slots__ = ("limits", "percentage", "priority")

    def __init__(self) -> None:
        self.percentage = 100.0
        self.limits: dict[int, int] = {}
        self.priority = 0

    @classmethod
    def from_environment(cls) -> Defaults:
        """CUDA_MPS_ACTIVE_THREAD_PERCENTAGE and CUDA_MPS_PINNED_DEVICE_MEM_LIMIT (`0=1G,1=512M`) of the
        daemon's environment."""
        defaults = cls()
        defaults.percentage = percentage(os.environ.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "")) or 100.0
        for word in os.environ.get("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "").split(","):
            device, _, text = word.partition("=")
            size = memory(text)
            if device.strip().isdigit() and size is not None:
                defaults.limits[int(device)] = size
        return defaults


def percentage(text: str) -> float | None:
    """A thread percentage in (0, 100], else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 < value <= 100.0 else None


def memory(text: str) -> int | None:
    """`2G` or `512M` in bytes, else None."""
    number, unit = text[:-1], text[-1:].upper()
    if not number.isdigit() or unit not in ("G", "M"):
        return None
    return int(number) * MIB * (1024 if unit == "G" else 1)


def memory_text(size: int) -> str:
    """The daemon's own notation, which cuts: `2G`, `512M`, and 1536 MiB are `1G` (recorded)."""
    return f"{size // MIB // 1024}G" if size >= 1024 * MIB else f"{size // MIB}M"


def _pid(words: list[str], place: int = 1) -> int:
    """The pid at `place`, 0 where there is none."""
    text = words[place] if len(words) > place else ""
    return int(text) if text.isdigit() else 0


def _server(control: Control, pid: int) -> Child | None:
    """The server `pid`, or None after saying that there is none."""
    child = control.servers.get(pid)
    if child is None:
        control.say(f"Server {pid} not found")
    return child


def _owner(control: Control) -> bool:
    """May this administrator change settings?"""
    if control.ui_uid in (0, os.geteuid()) or control.dialect.name == "535":
        return True
    control.say(control.dialect.say("settings", uid=control.ui_uid))
    return False


def get_server_list(control: Control, _words: list[str]) -> None:
    for pid, child in control.servers.items():
        if child.state == "INITIALIZING":
            control.log.note(f"Server {pid} is <busy>")
        else:
            control.say(str(pid))


def start_server(control: Control, words: list[str]) -> None:
    if len(words) < 3 or words[1] != "-uid" or not words[2].isdigit():
        if control.dialect.partitions and len(words) > 2 and words[1] == "-uid":
            control.say(f"Invalid UID: {words[2]}")
        control.say(control.dialect.say("need_uid"))
        return
    uid = int(words[2])
    if control.ui_uid not in (0, uid):
        control.say(control.dialect.say("insufficient", uid=control.ui_uid))
        return
    if control.server_of(uid) is None:
        control.retire_others(uid)
        if not control.servers:
            control.start_server(uid)
        else:
            control.wanted = uid


def shutdown_server(control: Control, words: list[str]) -> None:
    child = _server(control, _pid(words))
    if child is None or not _owner(control):
        return
    if "-f" in words[2:]:
        control.log.note(f"Force shutting down server {child.pid}")
        mps_wire.send(child.link, mps_wire.words("shutdown", force=1, retire=1))
    elif child.count:
        control.log.note(f"Server {child.pid} has {child.count} active worker threads. Server will not shutdown.")
        child.unwanted = True
    else:
        control.retire(child)


def get_client_list(control: Control, words: list[str]) -> None:
    child = _server(control, _pid(words))
    for pid in dict.fromkeys(pid for pid, _ in child.clients) if child else ():
        control.say(str(pid))


def get_device_client_list(control: Control, words: list[str]) -> None:
    if len(words) > 1:
        child = _server(control, _pid(words))
        chosen = [child] if child else []
    else:
        chosen = list(control.servers.values())
    for one in chosen:
        for gpu in _visible():
            control.say(gpu.uuid)
            for pid in dict.fromkeys(pid for pid, _ in one.clients):
                control.say(str(pid))


def _visible() -> list[mps_host.Gpu]:
    host = mps_host.read()
    return host.visible(os.environ.get("CUDA_VISIBLE_DEVICES")) if host else []


def get_server_status(control: Control, words: list[str]) -> None:
    if len(words) < 2 or not words[1].isdigit():
        control.say("A server PID is required")
        return
    child = _server(control, _pid(words))
    if child is not None:
        control.say(child.state)


def ps(control: Control, words: list[str]) -> None:
    if len(words) > 2 and words[1] == "-p":
        child = _server(control, _pid(words, 2))
        if child is None:
            control.say(f"Server {_pid(words, 2)} not found")
            control.blank()
            return
        chosen = [child]
    else:
        chosen = [one for one in control.servers.values() if one.state != "INITIALIZING"]
        if not chosen:
            for pid in control.servers:
                control.log.note(f"Server {pid} is <busy>")
            control.say("Server not found")
            return
    layout = "{:<10}{:<10}{:<15}{:<26}{:<15}{:<15}"
    control.say(layout.format("PID", "ID", "SERVER", "DEVICE", "NAMESPACE", "COMMAND").rstrip())
    devices = [gpu.uuid[:22] for gpu in _visible()]
    for one in chosen:
        for pid, _ in one.clients:
            for device in devices:
                control.say(layout.format(pid, 0, one.pid, device, _namespace(pid), _command(pid)).rstrip())


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid").strip("pid:[]")
    except OSError:
        return "N/A"


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return "N/A"


def terminate_client(control: Control, words: list[str]) -> int | None:
    child = _server(control, _pid(words))
    if child is None:
        control.say(f"Server {_pid(words)} not found!")
        control.say("1")
        return None
    mps_wire.send(child.link, mps_wire.words("terminate", pid=_pid(words, 2)))
    return child.pid


def get_default_active_thread_percentage(control: Control, _words: list[str]) -> None:
    control.say(f"{control.defaults.percentage:.1f}")


def set_default_active_thread_percentage(control: Control, words: list[str]) -> None:
    if not _owner(control):
        return
    value = percentage(words[1]) if len(words) > 1 else None
    if value is None:
        control.log.note("Invalid percentage, expected between (0.0, 100.0]")
    else:
        control.defaults.percentage = value
    control.say(f"{control.defaults.percentage:.1f}")


def get_active_thread_percentage(control: Control, words: list[str]) -> None:
    child = _server(control, _pid(words))
    if child is not None:
        control.say(f"{child.percentage:.1f}")


def set_active_thread_percentage(control: Control, words: list[str]) -> None:
    child = _server(control, _pid(words))
    if child is None or not _owner(control):
        return
    value = percentage(words[2]) if len(words) > 2 else None
    if value is None:
        control.log.note("Invalid percentage, expected between (0.0, 100.0]")
    else:
        child.percentage = value
        mps_wire.send(child.link, mps_wire.words("percentage", value=value))
    control.say(f"{child.percentage:.1f}")


def _device(control: Control, words: list[str], place: int, count: int) -> int | None:
    """The device at `place` of a command of at least `count` words, or None after the log has said why not.

    Branches before 580 say nothing of a missing word and read it as device 0.
    """
    if len(words) < count:
        if control.dialect.lazy:
            control.log.note("Invalid command format.")
            return None
        return 0 if place >= len(words) and count == place + 1 else None
    text = words[place]
    if not text.isdigit() or int(text) >= DEVICES:
        control.log.note(control.dialect.say("bad_device", device=text))
        return None
    return int(text)


def get_default_device_pinned_mem_limit(control: Control, words: list[str]) -> None:
    device = _device(control, words, 1, 2)
    if device is None:
        return
    if device not in control.defaults.limits:
        control.log.note("No default pinned memory limit set for the device!")
        return
    control.say(memory_text(control.defaults.limits[device]))


def set_default_device_pinned_mem_limit(control: Control, words: list[str]) -> None:
    if control.dialect.lazy and len(words) > 2:
        control.log.note(f"set_default_device_pinned_mem_limit {words[1]} {words[2]}.")
    if not _owner(control):
        return
    device = _device(control, words, 1, 3)
    size = memory(words[2]) if device is not None else None
    if device is not None and size is not None:
        control.defaults.limits[device] = size


def get_device_pinned_mem_limit(control: Control, words: list[str]) -> None:
    child = _server(control, _pid(words))
    device = _device(control, words, 2, 3) if child is not None else None
    if child is None or device is None:
        return
    if device in child.limits:
        control.say(memory_text(child.limits[device]))
    else:
        control.log.note("No default pinned memory limit set for the device!")


def set_device_pinned_mem_limit(control: Control, words: list[str]) -> None:
    child = _server(control, _pid(words))
    if child is None or not _owner(control):
        return
    device = _device(control, words, 2, 4)
    size = memory(words[3]) if device is not None else None
    if device is not None and size is not None:
        child.limits[device] = size
        mps_wire.send(child.link, mps_wire.words("limits", list=mps_spawn.limits_text(child.limits)))


def get_default_client_priority(control: Control, _words: list[str]) -> None:
    control.say(str(control.defaults.priority))


def set_default_client_priority(control: Control, words: list[str]) -> None:
    if not _owner(control):
        return
    wanted = words[1] if len(words) > 1 else "0"
    if wanted in ("0", "1"):
        control.defaults.priority = int(wanted)
    else:
        control.say("Invalid priority value - must be 0 or 1!")


def device_query(control: Control, words: list[str]) -> None:
    if len(words) > 1 and words[1].isdigit() and _server(control, int(words[1])) is None:
        return
    gpus = _visible()
    if not gpus:
        control.say("Failed to query devices")
        return
    layout = "{},{},{},{},{}" if "--csv" in words else "{:<14}  {:<13}  {:<40}  {:<32}  {}"
    control.say(layout.format("Device Ordinal", "PCI IDs", "UUID", "Name", "Attributes"))
    for ordinal, gpu in enumerate(gpus):
        control.say(layout.format(ordinal, gpu.bus.replace(".0", ".00.00"), gpu.uuid, gpu.name, "N/A"))


def quit_daemon(control: Control, words: list[str]) -> None:
    if control.ui_uid not in (0, os.geteuid()):
        control.say("Not enough privilege to execute quit command")
        return
    seconds: float | None = None
    if len(words) > 1 and words[1] == "-t":
        seconds = 0.0
        if len(words) > 2 and words[2].isdigit():
            seconds = float(words[2])
            control.log.note(f"quit command issued with timeout of {words[2]}")
    control.quit(seconds)


_TABLE: dict[str, Callable[[Control, list[str]], int | None]] = {
    "get_server_list": get_server_list,
    "start_server": start_server,
    "shutdown_server": shutdown_server,
    "get_client_list": get_client_list,
    "get_device_client_list": get_device_client_list,
    "get_server_status": get_server_status,
    "ps": ps,
    "get_default_active_thread_percentage": get_default_active_thread_percentage,
    "set_default_active_thread_percentage": set_default_active_thread_percentage,
    "get_active_thread_percentage": get_active_thread_percentage,
    "set_active_thread_percentage": set_active_thread_percentage,
    "get_default_device_pinned_mem_limit": get_default_device_pinned_mem_limit,
    "set_default_device_pinned_mem_limit": set_default_device_pinned_mem_limit,
    "get_device_pinned_mem_limit": get_device_pinned_mem_limit,
    "set_device_pinned_mem_limit": set_device_pinned_mem_limit,
    "get_default_client_priority": get_default_client_priority,
    "set_default_client_priority": set_default_client_priority,
    "terminate_client": terminate_client,
    "device_query": device_query,
    "sm_partition": mps_partitions.sm_partition,
    "lspart": mps_partitions.lspart,
    "quit": quit_daemon,
}


def run(control: Control, line: str) -> int | None:
    """Carry out one line; the pid of the server whose answer must come first, or None."""
    words = line.split()
    if not words or words[0] not in control.dialect.commands:
        control.say(f'Unknown command "{words[0] if words else ""}"')
        return None
    return _TABLE[words[0]](control, words)
