"""Ranks that an mpiexec has started, with `mpsr run` or mpsr-launch before the program: which GPU and number each has."""

import pytest

from tests.spank.supervisor_kit import Node

KINDS = {
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "hydra": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    "MVAPICH": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
}
BATCH = {"SLURM_STEP_ID": str(0xFFFFFFFB), "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


def said(node: Node, env: dict[str, str]) -> tuple[str, str]:
    """Task and GPU of its hello."""
    supervised = node.start("true", env=env)
    hello = node.agent.accept().place()
    assert supervised.end()[0] == 0
    return hello["task"], hello["gpu"]


def rank(kind: str, number: int, size: int, local: int) -> dict[str, str]:
    return dict(zip(KINDS[kind], map(str, (number, size, local)), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_spread_over_the_gpus_of_their_node(node: Node, kind: str) -> None:
    got = [said(node, BATCH | rank(kind, 4 + local, 8, local)) for local in (1, 0, 3, 2)]
    assert got == [("5", "3"), ("4", "0"), ("7", "3"), ("6", "0")]


def test_a_second_mpiexec_of_a_script_goes_on_behind_the_first(node: Node) -> None:
    assert [said(node, BATCH | rank("hydra", number, 2, number))[0] for number in (1, 0, 1, 0)] == ["1", "0", "3", "2"]


@pytest.mark.parametrize(
    ("visible", "gpu"),
    [("GPU-aaaa", "3"), ("0", "3"), ("", "3"), ("1", "3")],
    ids=["the server's GPU, for all ranks", "the same on each node", "nothing", "a wrapper's own choice"],
)
def test_what_all_ranks_are_told_is_no_choice(node: Node, visible: str, gpu: str) -> None:
    told = {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
    assert said(node, BATCH | rank("hydra", 1, 2, 1) | told)[1] == gpu


def test_a_wrappers_choice_stands(node: Node) -> None:
    assert said(node, BATCH | rank("hydra", 0, 2, 0) | {"CUDA_VISIBLE_DEVICES": "1"})[1] == "3"


@pytest.mark.parametrize(
    "env",
    [
        {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"},
        {"PMI_RANK": "3", "PMI_SIZE": "3", "MPI_LOCALRANKID": "0"},
        {"PMI_RANK": "x", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0"},
        {"MPSR_ARGV0": "true"} | rank("hydra", 3, 4, 0),
    ],
    ids=["no local rank", "more than there are", "not a number", "started by srun"],
)
def test_whatever_is_no_such_rank_goes_by_slurm(node: Node, env: dict[str, str]) -> None:
    assert said(node, env) == ("5", "3")
