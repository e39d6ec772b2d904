"""Print what a file of requirements/ locks: `requirements.py runtime|dev|build|fuzz|mpi|toolkit`, from pyproject.toml.

The project itself is not installed for work on it: PYTHONPATH names the clone, so that no stale copy can be run by mistake.
"""

import sys
import tomllib
from pathlib import Path


def wanted(part: str) -> list[str]:
    """The requirements of one part, in pip's words."""
    everything = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    project, extras = everything["project"], everything["project"]["optional-dependencies"]
    parts = {
        "runtime": project["dependencies"],
        "dev": [*project["dependencies"], *extras["dev"]],
        "build": [*everything["build-system"]["requires"], "wheel"],
        "fuzz": extras["fuzz"],
        "mpi": extras["mpi"],
        "toolkit": extras["toolkit"],
    }
    return list(parts[part])


if __name__ == "__main__":
    print("\n".join(wanted(sys.argv[1])))
