"""The epilog of a job that is over, run where slurmd has not: ports.Epilogs."""

import os
import subprocess
import sys

from resilience.adapters.slurm.requeue_sequence import ENDED
from resilience.contract import env
from resilience.model.errors import UnknownJob
from resilience.model.lease import Lease
from resilience.ports import Slurm

_SECONDS = 60.0


class MissedEpilogs:
    """`config`: the agent's own mpsr.yaml, where it was given one."""

    def __init__(self, slurm: Slurm, config: str | None) -> None:
        self._slurm = slurm
        self._config = config

    def over(self, lease: Lease) -> bool:
        """Whether this run of the job has ended on all of its nodes. While a job completes epilogs run: it is not over."""
        try:
            known = self._slurm.job(lease.job)
        except UnknownJob:
            return True
        return known.state in ENDED or (known.restarts > lease.restart and known.state != "COMPLETING")

    def run(self, lease: Lease) -> str:
        """What went wrong, in words."""
        of_slurmd = {
            "SLURM_JOB_ID": str(lease.job),
            "SLURM_JOB_UID": str(lease.uid),
            "SLURM_JOB_GID": str(lease.gid),
            "SLURM_JOB_USER": lease.user,
            "SLURM_JOB_RESTART_COUNT": str(lease.restart),
            "SLURM_JOB_PARTITION": lease.partition,
            "SLURMD_NODENAME": lease.node,
        }
        own = {env("config"): self._config} if self._config else {}
        command = [sys.executable, "-P", "-m", "resilience.cli.main", "epilog"]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **own, **of_slurmd},
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return done.stderr.strip()
