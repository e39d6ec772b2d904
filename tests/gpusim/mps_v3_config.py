"""`nvidia-cuda-mps-control -d -p 3 --apply FILE`: servers, namespaces, devices with SM partitions and features from a TOML file.

Job: read the file once, before anything is made, and carry it out when the daemon listens. Imported only when the option is given.

Source: documented, not recorded: the keys of each table, the types of the document's example, that an unknown key is a
configuration error and that a namespace `default` is the built-in one. Ours: every wording; that a daemon with a configuration error does
not start; and what the document leaves open: `schema_version` may be missing, a server without `uid` belongs to the daemon's user, limits
of the namespace `default` beat those of its server, a device must be one that the server may use. `default_socket` of the feature
context-share, which only the document's example has, may be any text, and is forgotten.

On failure: ValueError in words, OSError where the file cannot be read. A server that cannot be made for want of its directory is a line in
control.log, as one that dies at its start.
"""

from __future__ import annotations

import os
import tomllib
from typing import TypeAlias

from . import mps_v3, mps_v3_namespaces, mps_wire
from .mps_v3_forms import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_daemon import Control
    from .mps_v3 import Names

    Table: TypeAlias = dict[str, object]

SCHEMA = "1.0"
_LIMITS: dict[str, type] = {key.replace("-", "_"): str for key in mps_v3_namespaces.LIMITS}
_SERVER = {"allowed_devices": str, **_LIMITS, "uid": int, "locality_domains": bool, "namespaces": dict, "devices": list}
_PARTITION = {"name": str, "chunks": int, "include_remainder": bool}
_FEATURES: dict[str, dict[str, type]] = {
    "memacct": {"enabled": bool, "audit_log": bool},
    "context-share": {"enabled": bool, "default_socket": str},
}
_WORDS = {str: "a string", int: "an integer", bool: "true or false", dict: "a table", list: "an array of tables"}


class Planned:
    """A server of the file: `spaces` has each namespace's limits, `partitions` by device and name."""

    __slots__ = ("devices", "locality", "partitions", "spaces", "uid")

    def __init__(self, uid: int, devices: str, locality: bool) -> None:
        self.uid = uid
        self.devices = devices
        self.locality = locality
        self.spaces: dict[str, dict[str, str]] = {}
        self.partitions: dict[tuple[str, str], mps_v3.Partition] = {}


class Config:
    """The whole file, found good."""

    __slots__ = ("audit_log", "enabled", "servers")

    def __init__(self, servers: dict[str, Planned], features: dict[str, Table]) -> None:
        self.servers = servers
        self.enabled = {name: bool(table.get("enabled", True)) for name, table in features.items()}
        self.audit_log = bool(features.get("memacct", {}).get("audit_log", False))

    def apply(self, control: Control, names: Names) -> None:
        """Start the servers, and set everything before their first client."""
        names.enabled |= self.enabled
        names.audit_log = self.audit_log
        for name, planned in self.servers.items():
            try:
                mps_v3.create(control, names, name, planned.uid, planned.devices, locality=planned.locality)
                for space, limits in planned.spaces.items():
                    if space != mps_v3.NAMESPACE:
                        mps_v3.create_space(control, names, name, space)
                    mps_v3_namespaces.limit(names.servers[name].spaces[space], limits)
            except OSError as error:
                control.log.note(f"Server {name} cannot be created: {error.strerror or error}")
                continue
            for (gpu, partition), held in planned.partitions.items():
                names.partitions[name, gpu, partition] = held


def read(path: str, pipe: str, multiuser: bool) -> Config:
    """The file's content for a daemon of that pipe directory."""
    with open(path, "rb") as file:
        whole = _checked("", tomllib.load(file), {"schema_version": str, "servers": dict, "features": dict})
    if whole.get("schema_version", SCHEMA) != SCHEMA:
        raise ValueError(f"schema_version: {whole['schema_version']}, expected {SCHEMA}")
    features = {
        name: _checked(f"features.{name}", table, _FEATURES.get(name))
        for name, table in _tables(whole.get("features")).items()
    }
    servers = {
        name: _server(f"servers.{name}", name, table, pipe, multiuser)
        for name, table in _tables(whole.get("servers")).items()
    }
    return Config(servers, features)


def _tables(value: object) -> Table:
    return value if isinstance(value, dict) else {}


def _checked(where: str, value: object, keys: dict[str, type] | None, needed: tuple[str, ...] = ()) -> Table:
    """A table that has no other keys than these, each of its type, and those that it needs."""
    if keys is None:
        raise ValueError(f"{where}: unknown")
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a table")
    for key, one in value.items():
        place = f"{where}.{key}".lstrip(".")
        if key not in keys:
            raise ValueError(f"{place}: unknown key")
        if type(one) is not keys[key]:
            raise ValueError(f"{place}: expected {_WORDS[keys[key]]}")
    for key in needed:
        if key not in value:
            raise ValueError(f"{where}: {key} is missing")
    return value


def _limits(where: str, table: Table) -> dict[str, str]:
    """The limits in it by the names of the command line."""
    given = {key.replace("_", "-"): str(value) for key, value in table.items() if key in _LIMITS}
    if why := mps_v3_namespaces.bad_limit(given):
        raise ValueError(f"{where}: {why}")
    return given


def _server(where: str, name: str, value: object, pipe: str, multiuser: bool) -> Planned:
    table = _checked(where, value, _SERVER)
    uid = table.get("uid", os.geteuid())
    if not isinstance(uid, int) or uid < 0 or os.geteuid() not in (0, uid) or (multiuser and uid != 0):
        raise ValueError(f"{where}.uid: no server can be started for user {uid}")
    planned = Planned(uid, str(table.get("allowed_devices", "")), table.get("locality_domains") is True)
    spaces = _tables(table.get("namespaces"))
    planned.spaces = {mps_v3.NAMESPACE: _limits(where, table)}
    for space, limits in spaces.items():
        place = f"{where}.namespaces.{space}"
        given = _limits(place, _checked(place, limits, _LIMITS))
        planned.spaces[space] = planned.spaces.get(space, {}) | given
    for one in planned.spaces:
        if not mps_v3.good_name(name) or not mps_v3.good_name(one):
            raise ValueError(f"{where}: invalid name {one if mps_v3.good_name(name) else name}")
        if len(os.fsencode(os.path.join(pipe, name, one, "control"))) > mps_wire.PATH_BYTES:
            raise ValueError(f"{where}: the path of its socket is too long for namespace {one}")
    devices = table.get("devices", [])
    for number, device in enumerate(devices if isinstance(devices, list) else ()):
        _device(f"{where}.devices[{number}]", device, planned)
    if planned.locality and planned.partitions:
        raise ValueError(f"{where}: locality domains and SM partitions exclude each other")
    return planned


def _device(where: str, value: object, planned: Planned) -> None:
    """Add the partitions of one device."""
    device = _checked(where, value, {"uuid": str, "sm_partitions": list}, ("uuid",))
    gpu = str(device["uuid"])
    if gpu not in [one.uuid for one in visible(planned.devices)]:
        raise ValueError(f"{where}.uuid: {gpu} is no device of this server")
    entries = device.get("sm_partitions", [])
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        place = f"{where}.sm_partitions[{number}]"
        table = _checked(place, entry, _PARTITION, ("name", "chunks"))
        name = str(table["name"])
        chunks = table["chunks"]
        if not isinstance(chunks, int) or chunks < 1:
            raise ValueError(f"{place}.chunks: {chunks}, expected a positive integer")
        if not mps_v3.good_name(name) or (gpu, name) in planned.partitions:
            raise ValueError(f"{place}.name: {name} is bad or taken")
        planned.partitions[gpu, name] = mps_v3.Partition(chunks, table.get("include_remainder") is True)
