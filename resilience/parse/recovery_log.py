"""Where a job's recovery log lies. Pure; one rule for the agent, which names the places, and for the commands that read them."""

import os

from resilience.model.ids import JobId

_NO_PLACE = ("/dev", "/proc", "/sys")
"""Directories of the kernel's: an output there (/dev/null, /dev/tty, /proc/self/fd/1) is no file that one could lie beside."""


def name(job: JobId) -> str:
    return f"mpsr-{job}.log"


def places(stdout: str, workdir: str, job: JobId) -> tuple[str, ...]:
    """Beside the job's output file, else in its working directory. The supervisor takes the first that it can write, and
    the home directory when there is none."""
    output = os.path.normpath(stdout) if stdout.startswith("/") else ""
    beside = os.path.dirname(output)
    kernels = any(beside == one or beside.startswith(f"{one}/") for one in _NO_PLACE)
    directories = [beside if output and not kernels else "", workdir if workdir.startswith("/") else ""]
    return tuple(dict.fromkeys(os.path.join(one, name(job)) for one in directories if one))
