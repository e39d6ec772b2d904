"""What `mpsr check` asks slurmctld: whether it has what slurm.conf says, and what jobs with --mps need.

A file that was changed and not taken over (new GresTypes need a restart), or that is another one than slurmctld's, shows
here alone. Relies on `scontrol show config`. A controller that does not answer is a note: the file was looked at.
"""

from resilience.adapters.slurm.scontrol import Scontrol
from resilience.check.finding import Finding, fine, note, wrong
from resilience.check.slurm_conf import IMPLY_ALLOC, SlurmConf, words
from resilience.model.errors import ResilienceError

_RESTART = "restart slurmctld and the slurmds: new GresTypes are not taken over by `scontrol reconfigure`"
_RECONFIGURE = "scontrol reconfigure, on the host of slurmctld with the same slurm.conf; else restart it"


def check(conf: SlurmConf, scontrol: Scontrol) -> list[Finding]:
    try:
        has = scontrol.config()
    except ResilienceError as error:
        return [note("slurmctld", f"was not compared with slurm.conf: {error}")]
    if "PrologFlags" not in has:
        return [note("slurmctld", "was not compared with slurm.conf: it shows no configuration")]
    found = _missing(conf, has, "GresTypes", _RESTART) + _missing(conf, has, "PrologFlags", _RECONFIGURE)
    if not IMPLY_ALLOC & words(has["PrologFlags"]).keys():
        text = f"has no Alloc: {has['PrologFlags']}: servers of other nodes would start too late"
        found.append(wrong("slurmctld: PrologFlags", text, _RECONFIGURE))
    if "gpu" not in words(has.get("GresTypes", "")):
        found.append(wrong("slurmctld: GresTypes", f"has no gpu: {has.get('GresTypes', '')}", _RESTART))
    return found or [fine("slurmctld", f"PrologFlags {has['PrologFlags']}, GresTypes {has.get('GresTypes', '')}")]


def _missing(conf: SlurmConf, has: dict[str, str], key: str, hint: str) -> list[Finding]:
    """Words of any line of the file that slurmctld has not. It may have more: one flag sets another."""
    there = words(has.get(key, ""))
    lines = [words(value) for value in conf.values.get(key.lower(), [])]
    lost = list(dict.fromkeys(word for line in lines for low, word in line.items() if low not in there))
    if not lost:
        return []
    return [
        wrong(f"slurmctld: {key}", f"has not what slurm.conf names: {','.join(lost)}; it has {has.get(key, '')}", hint)
    ]
