"""Whether a job gets a pair of MPS servers for each GPU, or one pair over all of its GPUs (docs/adr/0008).

A CUDA process can be a client of one control daemon only, so a task that is to use several GPUs needs a server over them.
Such servers are the job's alone, and so are its GPUs: asked for as gres/gpu, not shared as gres/mps or gres/shard. What a job
asked for is known to slurmctld alone; it is asked for jobs with several GPUs on this node, and no others.
"""

import sys
from dataclasses import replace

from resilience.hooks.node import Node
from resilience.model.errors import ConfigError, SlurmError
from resilience.model.ids import JobId
from resilience.model.lease import Devices
from resilience.model.options import Domain, JobOptions, Servers

_OPTION = "--mps-servers=job"
NO_PARTITION = (
    "servers over several GPUs are not cut into SM partitions: --mps-servers=gpu has them, with one GPU for each task"
)


def settle(node: Node, job: JobId, options: JobOptions, gpus: Devices) -> JobOptions:
    """The job's options with what holds here for `servers` and, where that is `job`, for `domain`. Raises ConfigError."""
    if len(gpus) < 2 or options.servers is Servers.GPU:
        return replace(options, servers=Servers.GPU)
    try:
        request = node.gpu_request(job)
    except SlurmError as error:
        print(f"mpsr: prolog: job {job}: how its tasks use its GPUs cannot be asked: {error}", file=sys.stderr)
        return _over_all(options) if options.servers is Servers.JOB else replace(options, servers=Servers.GPU)
    if options.servers is Servers.JOB and not request.whole:
        hint = "ask for --gres=gpu:N, or leave it out: each task then uses one GPU"
        raise ConfigError(
            "options", "needs whole GPUs, and this job shares them (gres/mps, gres/shard)", _OPTION, hint=hint
        )
    over_all = request.whole and (options.servers is Servers.JOB or not request.one_each)
    return _over_all(options) if over_all else replace(options, servers=Servers.GPU)


def _over_all(options: JobOptions) -> JobOptions:
    return replace(options, servers=Servers.JOB, domain=Domain.JOB)
