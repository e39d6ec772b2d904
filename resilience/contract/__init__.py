"""The loader of contract.toml: the names that C, shell and Python share.

Relies on the file beside it, loaded once. A missing or broken file is a broken installation and raises.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def contract() -> dict[str, Any]:
    """The whole contract as nested dictionaries, in the order of the file. Do not modify."""
    return tomllib.loads((Path(__file__).parent / "contract.toml").read_text(encoding="utf-8"))


def path(name: str, **parts: object) -> str:
    """A path of the `[path]` table, filled: path("lease", run="/run/mpsr", node="n0", job=7)."""
    return str(contract()["path"][name]).format(**parts)


def env(name: str) -> str:
    """The environment variable that the contract's `[env]` table calls `name`."""
    return str(contract()["env"][name])


def exit_code(name: str) -> int:
    """The exit status that the contract's `[exit]` table calls `name`."""
    return int(contract()["exit"][name])
