"""Which adapter of the Slurm port a node uses: pyslurm where it is installed and fits the site, else scontrol.

pyslurm is built for one Slurm release. It is tried in a process of its own, which an import that goes wrong ends instead of
us, and taken where it reaches slurmctld and has its release; else `auto` takes scontrol and `why` says so.
`slurm.adapter: pyslurm` makes that an error instead, but for a slurmctld that does not answer now.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from resilience.adapters.slurm.pyslurm_process import Processes
from resilience.adapters.slurm.pyslurm_slurm import Pyslurm
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.errors import ConfigError, SlurmAway, SlurmError
from resilience.model.settings import Settings
from resilience.ports import Slurm


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    slurm: Slurm
    name: str
    """pyslurm or scontrol."""
    why: str
    close: Callable[[], None]
    """Ends what was started for it."""


def pick(settings: Settings) -> Picked:
    """The adapter in force. Raises ConfigError when the one that the admin named cannot be had."""
    scontrol = Scontrol(
        program=settings.paths.scontrol,
        timeout=settings.slurm.timeout,
        requeue_timeout=settings.recovery.requeue_timeout,
    )
    if settings.slurm.adapter == "scontrol":
        return _scontrol(scontrol, "set in slurm.adapter")
    processes = Processes(timeout=settings.slurm.timeout)
    why_not = _why_not(processes, forced=settings.slurm.adapter == "pyslurm")
    if why_not:
        processes.close()
        reason = " ".join(why_not.split())[:200]
        if settings.slurm.adapter == "pyslurm":
            raise ConfigError("slurm.adapter", "pyslurm cannot be used", reason, hint="set slurm.adapter: auto")
        return _scontrol(scontrol, f"no pyslurm: {reason}")
    adapter = Pyslurm(
        processes,
        scontrol=scontrol,
        timeout=settings.slurm.timeout,
        requeue_timeout=settings.recovery.requeue_timeout,
    )
    return Picked(slurm=adapter, name="pyslurm", why="reaches slurmctld and has its release", close=processes.close)


def _why_not(processes: Processes, *, forced: bool) -> str:
    """Why pyslurm is not to be used; empty when it is."""
    if find_spec("pyslurm") is None:
        return "not installed"
    try:
        found = processes.releases()
    except SlurmAway as error:
        return "" if forced else str(error)
    except SlurmError as error:
        return error.observed or str(error)
    if _release(found["pyslurm"]) == _release(found["slurmctld"]):
        return ""
    return f"pyslurm {found['pyslurm']} is for another release than slurmctld's {found['slurmctld']}"


def _release(version: str) -> list[str]:
    """The part that must be the same: 25.11 of 25.11.2, and 22.05 of pyslurm's 22.5.0."""
    return [part.lstrip("0") for part in version.split(".")[:2]]


def _scontrol(scontrol: Scontrol, why: str) -> Picked:
    return Picked(slurm=scontrol, name="scontrol", why=why, close=lambda: None)
