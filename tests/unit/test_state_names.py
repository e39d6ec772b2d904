"""The names that resilience.state repeats for the sake of a small keeper are those of the contract."""

import subprocess
import sys

from resilience.contract import contract
from resilience.state import names


def test_every_repeated_name_is_the_contracts() -> None:
    table = contract()
    for name in ("FD", "ROLE", "KEEPER", "TOKEN", "STDIO", "SPILL"):
        assert getattr(names, name) == table["env"][name.lower()]
    for name in ("OK", "FAILED", "USAGE", "REFUSED"):
        assert getattr(names, f"EXIT_{name}") == table["exit"][name.lower()]
    assert table["wire"]["protocol_version"] == names.PROTOCOL_VERSION
    assert table["wire"]["max_fds"] == names.MAX_FDS


def test_keeper_loads_nothing_heavy() -> None:
    code = "import sys, resilience.state.keeper; print(' '.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-E", "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    for heavy in ("ctypes", "numpy", "tomllib", "dataclasses", "asyncio", "argparse", "subprocess", "ssl", "hashlib"):
        assert heavy not in loaded, heavy
    assert "json" in loaded
