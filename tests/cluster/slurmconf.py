"""The configuration of the private cluster that is Slurm's own: ports, daemons' directories, the bare gres.

What mpsr asks of a site is in the files of `mpsr render`, which site.py puts beside these; slurm.conf includes its
part. A cluster without mpsr has the same prolog flags and a prolog and epilog that do nothing, so that the two can be
compared.
"""

from tests.cluster.accounting import accounting_lines
from tests.cluster.plan import Plan

GPU_TYPE = "sandbox"
"""Slurm 22.05 ties gres/mps to the GPUs of a node that has gres/shard too only when they have a type: without one it
counts mps by the node, and a job's prolog is not told which GPU it has."""
SHARDS = 8
"""gres/shard units of a GPU."""
PLAIN = (
    "GresTypes=gpu,mps,shard",
    "SelectType=select/cons_tres",
    "PrologFlags=Alloc",
    "Prolog=/bin/true",
    "Epilog=/bin/true",
)
OURS = ("include /etc/slurm/slurm-mpsr.conf",)


def slurm_conf(plan: Plan) -> str:
    """The text of slurm.conf without the lines that mpsr renders."""
    gpus = plan.gpus
    node = (
        f"NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory=8000 "
        f"Gres=gpu:{GPU_TYPE}:{gpus},mps:{100 * gpus},shard:{SHARDS * gpus}"
    )
    nodes = [f"NodeName={name} Port={port} {node}" for name, port in zip(plan.nodes, plan.ports[1:], strict=True)]
    return "\n".join(
        [
            "ClusterName=sandbox",
            "SlurmctldHost=localhost(127.0.0.1)",
            f"SlurmctldPort={plan.ports[0]}",
            "SlurmUser=root",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            "StateSaveLocation=/var/spool/slurmctld",
            "SlurmdSpoolDir=/var/spool/slurmd/%n",
            "TmpFS=/run/sandbox/tmp/%n",  # PMIx keeps one directory a step there: several nodes cannot share it
            "SlurmctldPidFile=/run/slurmctld.pid",
            "SlurmdPidFile=/run/slurmd.%n.pid",
            "SlurmctldLogFile=/var/log/slurm/slurmctld.log",
            "SlurmdLogFile=/var/log/slurm/slurmd.%n.log",
            "SlurmctldDebug=info",
            "SlurmdDebug=info",
            "LogTimeFormat=iso8601_ms",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "TaskProlog=/etc/slurm/task-prolog",
            "SelectTypeParameters=CR_Core_Memory",
            "DefMemPerCPU=100",
            *(OURS if plan.plugin else PLAIN),
            "MpiDefault=none",
            "ReturnToService=2",
            "KillWait=2",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1",
            "SlurmdParameters=config_overrides",
            *(accounting_lines(plan.accounting) if plan.accounting else ()),
            *plan.conf,
            *nodes,
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            "",
        ]
    )


def gres_conf(plan: Plan) -> str:
    """Every node's GPUs, shared as gres/mps and gres/shard too. Simulated ones are device nodes of the sandbox."""
    lines = ["AutoDetect=off"]
    for name in plan.nodes:
        lines += [
            f"NodeName={name} Name=gpu Type={GPU_TYPE} File={plan.devices.format(node=name)}",
            f"NodeName={name} Name=mps Count={100 * plan.gpus}",
            f"NodeName={name} Name=shard Count={SHARDS * plan.gpus}",
        ]
    return "\n".join([*lines, ""])


def cgroup_conf(plan: Plan) -> str:
    """Nothing here uses cgroups, but slurmd insists on a plugin; what it accepts on any host differs by release."""
    return "CgroupPlugin=disabled\n" if plan.slurm >= (23, 11) else "CgroupPlugin=cgroup/v1\n"


def task_prolog(plan: Plan) -> str:
    """Gives tasks the simulated GPU of their node; on a real GPU only the Python path."""
    lines = ["#!/bin/sh", 'case "$SLURMD_NODENAME" in']
    for name in plan.nodes:
        exports = [f'echo "export {key}={value}"' for key, value in plan.environment(name).items()]
        lines += [f"{name})", *exports, ";;"]
    return "\n".join([*lines, "esac", ""])
