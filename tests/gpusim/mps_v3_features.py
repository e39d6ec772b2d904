"""`feature enable|disable|describe` and `memacct set|describe` of protocol 3.

Source: documented, not recorded, as in mps_v3_commands.py. Everything here is **kept and shown only**: memory is accounted for in nobody's
name, and no audit log is written. Ours where the document is silent: what `memacct describe` prints, that one command names one
feature, that the daemon's user and root alone may change what holds for every server. `context-share` is named as a module without
a single verb: whatever is said to it is unknown.

On failure: an answer in words, nothing changes.
"""

from __future__ import annotations

import os

from . import mps_v3
from .mps_v3_forms import mine, table, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_daemon import Control
    from .mps_v3 import Names
    from .mps_v3_forms import Options

COLUMNS = ("FEATURE", "STATE", "MODULE", "COVERS")
SETTING_COLUMNS = ("KEY", "VALUE")


def _switch(control: Control, names: Names, name: str, on: bool) -> None:
    if name not in mps_v3.FEATURES:
        control.say(f"Unknown feature {name}" if name else "A feature name is required")
    elif mine(control, os.geteuid()):
        names.enabled[name] = on


def enable(control: Control, names: Names, plain: list[str], options: Options) -> None:
    _switch(control, names, plain[0] if plain else "", True)


def disable(control: Control, names: Names, plain: list[str], options: Options) -> None:
    _switch(control, names, plain[0] if plain else "", False)


def describe(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """One feature or all; enabled is the default of each, and COVERS is `-` as in the document's example."""
    if plain and plain[0] not in mps_v3.FEATURES:
        control.say(f"Unknown feature {plain[0]}")
        return
    rows = [
        {"FEATURE": name, "STATE": "enabled (default)" if on else "disabled", "MODULE": name, "COVERS": "-"}
        for name, on in names.enabled.items()
        if name in (plain or mps_v3.FEATURES)
    ]
    table(control, COLUMNS, rows, options)


def set_accounting(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """`memacct set audit_log=<true|false>`, its only key."""
    text = options.get("audit_log", "")
    value = truth(text)
    if not text:
        control.say("A setting is required: audit_log=")
    elif value is None:
        control.say(f"Invalid value {text}, expected true or false")
    elif mine(control, os.geteuid()):
        names.audit_log = value


def describe_accounting(control: Control, names: Names, plain: list[str], options: Options) -> None:
    row = {"KEY": "audit_log", "VALUE": str(names.audit_log).lower()}
    table(control, SETTING_COLUMNS, [row], options)
