"""The names that C, shell and Python share: contract.toml, through the table that is rendered from it."""

from typing import Any

from resilience.contract.table import CONTRACT


def contract() -> dict[str, Any]:
    """The whole contract as nested dictionaries, in the order of the file. Do not modify."""
    return CONTRACT


def path(name: str, **parts: object) -> str:
    """A path of the `[path]` table, filled: path("lease", run="/run/mpsr", node="n0", job=7)."""
    return str(contract()["path"][name]).format(**parts)


def env(name: str) -> str:
    """The environment variable that the contract's `[env]` table calls `name`."""
    return str(contract()["env"][name])


def step(name: str) -> int:
    """Slurm's number of the step that the contract's `[step]` table calls `name`."""
    return int(contract()["step"][name])


def exit_code(name: str) -> int:
    """The exit status that the contract's `[exit]` table calls `name`."""
    return int(contract()["exit"][name])
