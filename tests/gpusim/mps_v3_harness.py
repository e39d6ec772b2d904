"""What a test of protocol 3 needs beside mps_harness.py: a running daemon, its commands, servers, and clients in a namespace."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Client, Mps


def place_on(sim: SimHost) -> Mps:
    """A place for a daemon of driver 615, not started."""
    place = Mps(sim)
    place.env["SIMGPU_MPS_DIALECT"] = "615"
    return place


@contextlib.contextmanager
def place_of(sim: SimHost, *options: str) -> Iterator[Mps]:
    """A daemon with protocol 3 that has started with these options; ended with all that it has started."""
    place = place_on(sim)
    try:
        started = place.start("-p", "3", *options)
        assert started.returncode == 0, started.stderr
        yield place
    finally:
        place.close()


def say(place: Mps, *words: str, user: int | None = None) -> list[str]:
    """One command in the words of the command line."""
    done = place.run(["nvidia-cuda-mps-control", *words], user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def listed(place: Mps, module: str, *words: str) -> list[list[str]]:
    """What `<module> list` prints, a list of fields for each line."""
    return [row.split(",") for row in say(place, module, "list", *words, "--format=csv,noheader")]


def create(place: Mps, name: str, *options: str) -> None:
    """A server, which runs when this returns."""
    assert say(place, "server", "create", name, f"--uid={os.getuid()}", *options) == []
    assert say(place, "server", "get", name, "status") == ["Ready"]


def door(place: Mps, server: str, space: str = "default") -> str:
    """The directory by which clients come to a namespace."""
    return str(place.pipe / server / space)


def join(place: Mps, server: str, partition: str = "", space: str = "default") -> Client:
    """A client in a namespace."""
    return place.client(CUDA_MPS_PIPE_DIRECTORY=door(place, server, space), CUDA_MPS_SM_PARTITION=partition)
