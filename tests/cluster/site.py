"""What a site's admin would do on the cluster: the files of Slurm and of mpsr at their places, and the simulated GPUs.

mpsr's files are those that `mpsr render` makes of the sandbox's own site file; nothing is written by hand that a real
site would get from us. The command `mpsr` is a small script, as Slurm gives prolog and epilog no environment: it knows
where this clone lies and which simulated GPU belongs to the node.
"""

import os
from collections.abc import Callable
from pathlib import Path

from tests.cluster import slurmconf
from tests.cluster.plan import BIN, REPO, SIM_DEVICES, STATE, Plan
from tests.gpusim import host

CONF = "/etc/slurm"


def write_all(plan: Plan, write: Callable[[str, str, int], None]) -> None:
    """Write slurm.conf and all that belongs to it."""
    write(f"{CONF}/slurm.conf", slurmconf.slurm_conf(plan), 0o644)
    write(f"{CONF}/cgroup.conf", slurmconf.cgroup_conf(plan), 0o644)
    write(f"{CONF}/task-prolog", slurmconf.task_prolog(plan), 0o755)
    if not plan.plugin:
        write(f"{CONF}/gres.conf", slurmconf.gres_conf(plan), 0o644)
        return
    from resilience.config import render

    for node in (*reversed(plan.nodes), ""):
        site = render.parse_site(site_yaml(plan, node), "the sandbox's site.yaml")
        for file in render.files(site, Path(REPO) / "templates" / "site"):
            if not node:
                write(f"{CONF}/{file.path}", file.text, file.mode)
            elif file.path == "mpsr.yaml":
                write(f"{CONF}/mpsr-{node}.yaml", file.text, file.mode)
    write(f"{BIN}/mpsr", command(plan), 0o755)


def site_yaml(plan: Plan, node: str = "") -> str:
    """The sandbox's choices. The file of one `node` differs in where its driver's messages are read."""
    kmsg = f"{plan.simgpu(node)}/kmsg" if node and not plan.real_gpu else "/dev/kmsg"
    return f"""\
nodes: "{",".join(plan.nodes)}"
slurm:
  version: "{plan.slurm[0]:02}.{plan.slurm[1]:02}"
gpus:
  per_node: {plan.gpus}
  files: "{plan.devices}"
  type: {slurmconf.GPU_TYPE}
  shards: {slurmconf.SHARDS}
install:
  plugin: {REPO}/build/mpsr.so
  launcher: {REPO}/build/mpsr-launch
  prolog: {REPO}/prolog_epilog/prolog
  epilog: {REPO}/prolog_epilog/epilog
  hook: {REPO}/build/mpsr-hook
  mpsr: {BIN}/mpsr
  python: {plan.python}
units: none
settings:
  paths:
    kmsg: "{kmsg}"
    cgroup: "{plan.cgroup}"
    state: "{STATE}"
  state:
    spill_seconds: 0.5
{plan.site}
  options:
    forbidden: []
{plan.options}"""


def command(plan: Plan) -> str:
    """The script `mpsr`."""
    lines = ["#!/bin/sh", 'case "${SLURMD_NODENAME:-}" in']
    for node in plan.nodes:
        lines.append(f"{node})")
        lines += [f"export {key}={value}" for key, value in plan.environment(node).items()]
        lines.append(";;")
    lines += ["esac", f"export PYTHONPATH={REPO}", f'exec {plan.python} -m resilience.cli.main "$@"', ""]
    return "\n".join(lines)


def simulated_hosts(plan: Plan) -> None:
    """One simulated host for each node, and a character device for each GPU (a second /dev/null)."""
    if plan.real_gpu:
        return
    for node in plan.nodes:
        host.make(Path(plan.simgpu(node)), minors=plan.minors, values=dict(plan.simulation))
        for minor in plan.minors:
            device = Path(f"{SIM_DEVICES.format(node=node)}{minor}")
            device.parent.mkdir(parents=True, exist_ok=True)
            os.mknod(device, 0o20666, os.makedev(1, 3))
            device.chmod(0o666)
