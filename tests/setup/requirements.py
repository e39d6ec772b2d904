"""Print what pip has to install for working on mpsr: the dependencies of pyproject.toml with the `dev` extra.

The project itself is not installed: PYTHONPATH names the clone, so that no stale copy can be run by mistake.
"""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
print("\n".join([*project["dependencies"], *project["optional-dependencies"]["dev"]]))
