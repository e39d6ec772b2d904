"""The client hook in a session's process: before a signal ends it, its work is taken off the GPU (docs/explanation/endings.md).

With --mps-endings=safe it is there already; then this changes nothing. A library that cannot be loaded costs only what it
would have given: the process ends as any other.
"""

import ctypes
from collections.abc import Mapping
from contextlib import suppress

from resilience.state import names


def guard(environ: Mapping[str, str]) -> None:
    """Load it, once the CUDA driver has been: it looks for that when it is loaded, and only then."""
    if path := environ.get(names.ENDING_LIBRARY):
        with suppress(OSError):
            ctypes.CDLL(path)
