"""The commands of protocol 3: `nvidia-cuda-mps-control <module> <verb> [words] [--key=value] [--flag]`.

Job: the table of modules and verbs, each with its usage line, and from there to whoever carries it out. `<module> help` and `<module>
<verb> help` print the usage lines, and what does not go with one is refused.

Source: **documented, not recorded**: verbs, options, fields, columns and the examples' lines follow NVIDIA's MPS document for 615
(615.71.09). Ours: the wording of a refusal, and that what the document does not have is refused; what is printed where the document shows
nothing, the text around the usage lines too; that `-q` is `quit -t 0`.

On failure: an answer in words, nothing changes.
"""

from __future__ import annotations

from . import mps_v3_clients, mps_v3_features, mps_v3_namespaces, mps_v3_partitions, mps_v3_servers
from .mps_v3_forms import misfit, read_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .mps_daemon import Control
    from .mps_v3 import Names
    from .mps_v3_forms import Options

    Command = Callable[[Control, Names, list[str], Options], int | None]

_FORMAT = "[--format=<table|csv>[,noheader]]"
_LIMITS = "[--pinned-memory-limit=<limit>] [--active-thread-percentage=<pct>] [--client-priority=<priority>]"
_LOCALITY = "[--locality-domains=<true|false>]"
_PARTITION = "<name> --server=<s> --device=<device>"
_FEATURE = "<memacct|context-share>"

COMMANDS: dict[str, dict[str, tuple[Command, str]]] = {
    "server": {
        "create": (mps_v3_servers.create, f"[<name>] [--uid=<n>] [--allowed-devices=<devices>] {_LOCALITY}"),
        "delete": (mps_v3_servers.delete, "<name> [--force]"),
        "list": (mps_v3_servers.listing, f"[<name>] {_FORMAT}"),
        "set": (mps_v3_servers.change, f"<name> [--uid=<n>] {_LIMITS} {_LOCALITY}"),
        "get": (mps_v3_servers.get, "<name> <field>"),
    },
    "namespace": {
        "create": (mps_v3_namespaces.create, "<name> --server=<s>"),
        "delete": (mps_v3_namespaces.delete, "<name> --server=<s> [--force]"),
        "list": (mps_v3_namespaces.listing, f"[<name>] [--server=<s>] {_FORMAT}"),
        "set": (mps_v3_namespaces.change, f"<name> --server=<s> {_LIMITS}"),
        "get": (mps_v3_namespaces.get, "<name> <server> <field>"),
    },
    "client": {
        "list": (mps_v3_clients.listing, f"[--server=<s>] [--all] {_FORMAT}"),
        "get": (mps_v3_clients.get, "<pid> <field>"),
        "terminate": (mps_v3_clients.terminate, "<pid>"),
    },
    "device": {"list": (mps_v3_clients.devices, f"[--server=<s>] {_FORMAT}")},
    "sm-partition": {
        "create": (mps_v3_partitions.create, f"{_PARTITION} --chunks=<n> [--include-remainder=<true|false>]"),
        "delete": (mps_v3_partitions.delete, _PARTITION),
        "list": (mps_v3_partitions.listing, f"[--server=<s>] [--device=<device>] [--all] {_FORMAT}"),
    },
    "feature": {
        "enable": (mps_v3_features.enable, _FEATURE),
        "disable": (mps_v3_features.disable, _FEATURE),
        "describe": (mps_v3_features.describe, f"[{_FEATURE}] {_FORMAT}"),
    },
    "memacct": {
        "set": (mps_v3_features.set_accounting, "audit_log=<true|false>"),
        "describe": (mps_v3_features.describe_accounting, _FORMAT),
    },
    "context-share": {},
}


def _help(control: Control, module: str, verbs: list[str]) -> None:
    for verb in verbs or ["help"]:
        usage = COMMANDS[module][verb][1] if verbs else ""
        control.say(f"Usage: nvidia-cuda-mps-control {module} {verb} {usage}".rstrip())


def run(control: Control, names: Names, line: str) -> int | None:
    """Carry out one line; the pid of the server whose answer must come first, or None."""
    module, verb, *words = (*line.split(), "", "")[: max(2, len(line.split()))]
    if module in COMMANDS and verb == "help":
        _help(control, module, list(COMMANDS[module]))
        return None
    if verb not in COMMANDS.get(module, {}):
        control.say(f'Unknown command "{line.strip()}"')
        return None
    if words == ["help"]:
        _help(control, module, [verb])
        return None
    act, usage = COMMANDS[module][verb]
    plain, options = read_options(words)
    if why := misfit(usage, plain, options):
        control.say(why)
        return None
    return act(control, names, plain, options)
