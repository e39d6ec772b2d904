"""Which adapter of the Slurm port a node uses: pyslurm where it is installed and fits the site, else scontrol.

pyslurm is built for one Slurm release and refuses any other when it is imported; `auto` then takes scontrol and `why`
says so. `slurm.adapter: pyslurm` makes that an error instead.
"""

from dataclasses import dataclass

from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.errors import ConfigError
from resilience.model.settings import Settings
from resilience.ports import Slurm


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    slurm: Slurm
    name: str
    """pyslurm or scontrol."""
    why: str


def pick(settings: Settings) -> Picked:
    """The adapter in force. Raises ConfigError when the one that the admin named cannot be had."""
    scontrol = Scontrol(
        program=settings.paths.scontrol,
        timeout=settings.slurm.timeout,
        requeue_timeout=settings.recovery.requeue_timeout,
    )
    if settings.slurm.adapter == "scontrol":
        return Picked(slurm=scontrol, name="scontrol", why="set in slurm.adapter")
    try:
        from resilience.adapters.slurm.pyslurm_slurm import Pyslurm, load
    except ImportError as error:  # the adapter itself is always there; what it needs of Python may not be
        return _without_pyslurm(settings, scontrol, str(error))
    try:
        api = load()
    except (ImportError, RuntimeError) as error:
        return _without_pyslurm(settings, scontrol, str(error))
    adapter = Pyslurm(
        api,
        arrays=scontrol,
        timeout=settings.slurm.timeout,
        requeue_timeout=settings.recovery.requeue_timeout,
    )
    return Picked(slurm=adapter, name="pyslurm", why="installed and built for this release of Slurm")


def _without_pyslurm(settings: Settings, scontrol: Scontrol, why: str) -> Picked:
    reason = " ".join(why.split())[:200]
    if settings.slurm.adapter == "pyslurm":
        raise ConfigError("slurm.adapter", "pyslurm cannot be used", reason, hint="set slurm.adapter: auto")
    return Picked(slurm=scontrol, name="scontrol", why=f"no pyslurm: {reason}")
