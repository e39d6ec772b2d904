"""`namespace create|delete|list|set|get` of protocol 3, and the limits that a namespace has.

Source: documented, not recorded, as in mps_v3_commands.py. A limit and a percentage hold for clients that come later; a priority is
kept and shown.

On failure: an answer in words, nothing changes.
"""

from __future__ import annotations

from . import mps_commands, mps_v3
from .mps_v3_forms import find_server, own_server, say_field, status, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_daemon import Control
    from .mps_spawn import Child
    from .mps_v3 import Names, Space
    from .mps_v3_forms import Options

COLUMNS = (
    "name",
    "server",
    "server-status",
    "pinned-memory-limit",
    "active-thread-percentage",
    "client-priority",
    "pipe-directory",
)
LIMITS = ("pinned-memory-limit", "active-thread-percentage", "client-priority")


def bad_limit(given: Options) -> str:
    """What is wrong with the limits among these, in words; empty when nothing is."""
    limit, percentage, priority = (given.get(key) for key in LIMITS)
    if limit is not None and mps_v3.size(limit) is None:
        return f"Invalid memory limit {limit}"
    if percentage is not None and not 1.0 <= (mps_commands.percentage(percentage) or 0.0) <= 100.0:
        return f"Invalid percentage {percentage}, expected between 1 and 100"
    if priority not in (None, "0", "1"):
        return "Invalid priority value - must be 0 or 1!"
    return ""


def limit(space: Space, given: Options) -> None:
    """Set the limits among these, which are good ones."""
    space.limit = given.get("pinned-memory-limit", space.limit)
    space.percentage = given.get("active-thread-percentage", space.percentage)
    space.priority = given.get("client-priority", space.priority)


def _row(names: Names, child: Child, name: str) -> dict[str, str]:
    space = names.servers[child.name].spaces[name]
    values = (name, child.name, status(child), space.limit or "-", space.percentage or "-", space.priority or "-",
              names.folder(child.name, name))  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _has(control: Control, names: Names, child: Child | None, name: str) -> bool:
    """Is there such a server, with such a namespace? Says so where not."""
    if child is not None and name not in names.servers[child.name].spaces:
        control.say(f"Namespace {name} not found on server {child.name}" if name else "A namespace name is required")
        return False
    return child is not None


def create(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name = plain[0] if plain else ""
    child = own_server(control, names, options.get("server", ""))
    if child is None:
        return
    if not mps_v3.good_name(name):
        control.say(f"Invalid namespace name {name}")
    elif name in names.servers[child.name].spaces:
        control.say(f"Namespace {name} already exists on server {child.name}")
    else:
        try:
            mps_v3.create_space(control, names, child.name, name)
        except OSError as error:
            control.say(f"Namespace {name} cannot be created: {error.strerror or error}")


def delete(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name = plain[0] if plain else ""
    child = own_server(control, names, options.get("server", ""))
    if child is None or not _has(control, names, child, name):
        return
    inside = [pid for pid, _ in child.clients if names.space_of.get(pid) == name]
    if name == mps_v3.NAMESPACE:
        control.say(f"Namespace {name} cannot be deleted")
    elif inside and "force" not in options:
        control.say(f"Namespace {name} has {len(inside)} clients")
    else:
        mps_v3.delete_space(control, names, child.name, name)


def listing(control: Control, names: Names, plain: list[str], options: Options) -> None:
    rows = [
        _row(names, child, name)
        for child in control.servers.values()
        if options.get("server", child.name) == child.name
        for name in names.servers[child.name].spaces
        if not plain or name == plain[0]
    ]
    table(control, COLUMNS, rows, options)


def change(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """`namespace set`: all of the limits or none."""
    name = plain[0] if plain else ""
    child = own_server(control, names, options.get("server", ""))
    if child is None or not _has(control, names, child, name):
        return
    if not set(LIMITS).intersection(options):
        control.say("At least one option is required: " + ", ".join(f"--{key}=" for key in LIMITS))
    elif why := bad_limit(options):
        control.say(why)
    else:
        limit(names.servers[child.name].spaces[name], options)


def get(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name, server, field = (*plain, "", "", "")[:3]
    child = find_server(control, server)
    if child is not None and _has(control, names, child, name):
        say_field(control, _row(names, child, name), COLUMNS, field)
