"""`server create|delete|list|set|get` of protocol 3.

Source: documented, not recorded, as in mps_v3_commands.py. `create` answers when the server is ready or gone: in the document's examples
the next command finds it running. `set --uid` stands in the document without a word of what it does: here the server belongs to that
user from then on, which shows in `uid` and in who may change the server; the process, and so whose clients it takes, stays as it
is. `--locality-domains` is kept, shown nowhere, and keeps static SM partitions away.

On failure: an answer in words, nothing changes.
"""

from __future__ import annotations

from . import mps_v3, mps_v3_namespaces, mps_wire
from .mps_v3_forms import find_server, mine, own_server, say_field, status, table, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_daemon import Control
    from .mps_spawn import Child
    from .mps_v3 import Names
    from .mps_v3_forms import Options

COLUMNS = ("name", "uid", "pid", "status", "pipe-directory", "allowed-devices", "context-ids")
FIELDS = COLUMNS[:-1]
SETTINGS = ("uid", *mps_v3_namespaces.LIMITS, "locality-domains")


def _row(names: Names, child: Child) -> dict[str, str]:
    server = names.servers[child.name]
    contexts = " ".join(str(context) for _, context in child.clients) or "-"
    values = (
        child.name,
        server.uid,
        child.pid,
        status(child),
        names.folder(child.name),
        server.devices or "all",
        contexts,
    )
    return dict(zip(COLUMNS, map(str, values), strict=True))


def _bad_option(control: Control, options: Options) -> str:
    """What is wrong with `uid` and `locality-domains`, in words: a multi-user daemon's servers are root's (documented)."""
    uid, locality = options.get("uid", "0"), options.get("locality-domains", "false")
    if not uid.isdigit() or (control.multiuser and uid != "0"):
        return f"Invalid user {uid}"
    return f"Invalid value {locality}, expected true or false" if truth(locality) is None else ""


def create(control: Control, names: Names, plain: list[str], options: Options) -> int | None:
    name = plain[0] if plain else f"uid_{options['uid']}" if "uid" in options else ""
    if not name:
        control.say("A server name or --uid is required")
    elif why := _bad_option(control, options):
        control.say(why)
    elif not mps_v3.good_name(name):
        control.say(f"Invalid server name {name}")
    elif name in names.servers:
        control.say(f"Server {name} already exists")
    elif mine(control, uid := int(options.get("uid", control.ui_uid))):
        locality = options.get("locality-domains") == "true"
        try:
            child = mps_v3.create(control, names, name, uid, options.get("allowed-devices", ""), locality=locality)
        except OSError as error:
            control.say(f"Server {name} cannot be created: {error.strerror or error}")
        else:
            return child.pid
    return None


def delete(control: Control, names: Names, plain: list[str], options: Options) -> None:
    child = own_server(control, names, plain[0] if plain else "")
    if child is None:
        return
    if child.count and "force" not in options:
        control.say(f"Server {child.name} has {child.count} clients")
        return
    for pid in dict.fromkeys(pid for pid, _ in child.clients):
        mps_wire.send(child.link, mps_wire.words("terminate", pid=pid))
    mps_wire.send(child.link, mps_wire.words("shutdown", force=1, retire=1))


def listing(control: Control, names: Names, plain: list[str], options: Options) -> None:
    found = [one for one in control.servers.values() if not plain or one.name == plain[0]]
    table(control, COLUMNS, [_row(names, child) for child in found], options)


def get(control: Control, names: Names, plain: list[str], options: Options) -> None:
    child = find_server(control, plain[0] if plain else "")
    if child is not None:
        say_field(control, _row(names, child), FIELDS, plain[1] if len(plain) > 1 else "")


def change(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """`server set`: all of it or nothing. A server's limits are those of its namespace `default` (documented)."""
    child = own_server(control, names, plain[0] if plain else "")
    if child is None:
        return
    server, locality = names.servers[child.name], options.get("locality-domains")
    if not options:
        control.say("At least one option is required: " + ", ".join(f"--{key}=" for key in SETTINGS))
    elif why := _bad_option(control, options) or mps_v3_namespaces.bad_limit(options):
        control.say(why)
    elif locality == "true" and any(key[0] == child.name for key in names.partitions):
        control.say(f"Server {child.name} has SM partitions and so no locality domains")
    elif mine(control, uid := int(options.get("uid", server.uid))):
        server.uid = uid
        server.locality = server.locality if locality is None else locality == "true"
        mps_v3_namespaces.limit(server.spaces[mps_v3.NAMESPACE], options)
