"""What tests have of the host's cgroups: a place of their own for each site, and no trace of it afterwards."""

import os
import time
from contextlib import suppress
from pathlib import Path

from resilience.adapters.linux.cgroups import of_this_host

_SECONDS = 2.0


def roots() -> tuple[Path, ...]:
    """The hierarchies that the product uses on this host; none where it can use none."""
    found = of_this_host()
    places = (found.tracking, *found.accounting) if found else ()
    return tuple(Path(place) for place in places if os.access(place, os.W_OK))


def forget_cgroup(name: str) -> None:
    """Remove a site's cgroups, whose processes have been ended: the last of them may just be going."""
    deadline = time.monotonic() + _SECONDS
    for root in roots():
        top = root / name.strip("/")
        while top.is_dir():
            for directory, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(directory)
            if time.monotonic() > deadline:
                break
