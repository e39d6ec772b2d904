"""What a site's admin would do on the cluster: the files of Slurm and of mpsr at their places, and the simulated GPUs.

For now the cluster is Slurm's own; mpsr's files come from `mpsr render`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from tests.cluster import slurmconf
from tests.cluster.plan import Plan


def write_all(plan: Plan, write: Callable[[str, str, int], None]) -> None:
    write("/etc/slurm/slurm.conf", slurmconf.slurm_conf(plan), 0o644)
    write("/etc/slurm/gres.conf", slurmconf.gres_conf(plan), 0o644)
    write("/etc/slurm/cgroup.conf", slurmconf.cgroup_conf(plan), 0o644)
    write("/etc/slurm/task-prolog", slurmconf.task_prolog(plan), 0o755)


def simulated_hosts(plan: Plan) -> None:
    """A character device for each simulated GPU (a second /dev/null: Slurm ignores plain files)."""
    if plan.real_gpu:
        return
    for node in plan.nodes:
        for gpu in range(plan.gpus):
            device = Path(f"/run/simgpu/dev/{node}/nvidia{gpu}")
            device.parent.mkdir(parents=True, exist_ok=True)
            os.mknod(device, 0o20666, os.makedev(1, 3))
            device.chmod(0o666)
