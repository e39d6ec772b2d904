"""Which servers a job with several GPUs gets, by what it asked for and what Slurm says of it."""

from types import SimpleNamespace
from typing import cast

import pytest

from resilience.hooks import spans
from resilience.hooks.node import Node
from resilience.model.errors import ConfigError, SlurmError
from resilience.model.ids import GpuMinor, GpuUuid, JobId
from resilience.model.options import Domain, JobOptions, Servers
from resilience.parse.gpu_request import GpuRequest

GPUS = ((GpuMinor(0), GpuUuid("GPU-0")), (GpuMinor(1), GpuUuid("GPU-1")))
AUTO, GPU, JOB = Servers.AUTO, Servers.GPU, Servers.JOB


def node(request: GpuRequest | None) -> Node:
    """`None`: slurmctld does not answer."""

    def gpu_request(_job: JobId) -> GpuRequest:
        if request is None:
            raise SlurmError("slurmctld", "cannot be asked", "x")
        return request

    return cast(Node, SimpleNamespace(gpu_request=gpu_request))


def settled(asked: Servers, request: GpuRequest | None, gpus: int = 2) -> JobOptions:
    return spans.settle(node(request), JobId(1), JobOptions(mps=True, servers=asked), GPUS[:gpus])


@pytest.mark.parametrize(
    ("asked", "whole", "one_each", "given"),
    [
        (AUTO, True, False, JOB),
        (AUTO, True, True, GPU),
        (AUTO, False, False, GPU),
        (JOB, True, True, JOB),
        (GPU, True, False, GPU),
    ],
)
def test_what_a_job_gets(asked: Servers, whole: bool, one_each: bool, given: Servers) -> None:
    options = settled(asked, GpuRequest(whole=whole, one_each=one_each))
    assert options.servers is given
    assert options.domain is (Domain.JOB if given is JOB else Domain.USER), "servers over several GPUs are one job's"


def test_slurm_is_asked_for_jobs_with_several_gpus_alone() -> None:
    assert settled(AUTO, None, gpus=1).servers is GPU
    assert settled(JOB, None, gpus=1).domain is Domain.USER


def test_a_slurm_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert settled(AUTO, None).servers is GPU
    assert "job 1: how its tasks use its GPUs cannot be asked" in capsys.readouterr().err
    assert settled(JOB, None).servers is JOB, "who asks for it has it"


def test_a_job_that_shares_its_gpus_is_refused_one_pair_over_them() -> None:
    with pytest.raises(ConfigError, match="needs whole GPUs") as refused:
        settled(JOB, GpuRequest(whole=False, one_each=False))
    assert "--gres=gpu:N" in refused.value.hint
