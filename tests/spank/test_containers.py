"""The supervisor in containers that a plugin makes of the task, as pyxis does, and Slurm's own --container.

Real Slurm, real namespaces; tests/containers/standin.c is in pyxis' place. The user is not root, and the image is his.
"""

import pwd
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers.parts import bare_image, no_containers, standin
from tests.spank.node import GPUS, ROOT
from tests.spank.site import Site
from tests.spank.slurm import wait_for

pytestmark = pytest.mark.cluster

USER = "daemon"
UID = pwd.getpwnam(USER).pw_uid


@dataclass(frozen=True, slots=True)
class Container:
    site: Site
    plugin: Path
    image: Path

    def order(self, first: str) -> None:
        """Load both plugins, ours or the stand-in first."""
        self.site.plugin()
        stack = self.site.cluster.dir / "plugstack.conf"
        ours = stack.read_text().strip()
        lines = [ours, f"optional {self.plugin}"]
        stack.write_text("\n".join(lines if first == "ours" else reversed(lines)) + "\n")

    def run(self, *options: str, mounted: bool = True, mps: bool = True) -> subprocess.CompletedProcess[str]:
        mounts = [f"--container-mounts={self.site.run}:{self.site.run}"] if mounted else []
        words = ["srun", "-Q", *(["--mps"] if mps else []), f"--container-image={self.image}", *mounts, *options]
        return self.site.cluster.run(*words, "/inside", user=USER, env={"HOME": "/"})


@pytest.fixture(scope="module")
def container(slurm: Site) -> Iterator[Container]:
    if reason := no_containers():
        pytest.skip(reason)
    yield Container(slurm, standin(slurm.cluster.dir), bare_image(slurm.cluster.dir / "image", UID))
    slurm.plugin()


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("remap", [(), ("--container-remap-root",)], ids=["as-user", "as-root"])
def test_the_supervisor_runs_in_an_image_that_has_nothing(
    container: Container, first: str, remap: tuple[str, ...]
) -> None:
    container.order(first)
    done = container.run(*remap)
    assert (done.returncode, done.stderr) == (0, GPUS)
    assert done.stdout == f"uid {0 if remap else UID}, /usr missing, pipe /pipes/a, name inside\n"


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_missing_mount_is_named(container: Container, first: str) -> None:
    container.order(first)
    done = container.run(mounted=False)
    assert done.returncode in (1, 3)
    run = container.site.run
    assert f"cannot be seen here: {run}: the prolog did not run, or this is a container: mount it" in done.stderr
    assert "uid" not in done.stdout
    assert "execve" not in done.stderr
    wait_for(lambda: container.site.cluster.node_state() == "idle", "an idle node")


def test_a_supervisor_that_is_not_installed_is_named(slurm: Site, plugin: Callable[..., None]) -> None:
    plugin("launcher=/nowhere/mpsr-launch")
    done = slurm.cluster.run("srun", "-Q", "--mps", "true")
    assert done.returncode == 1
    assert "mpsr: supervisor: cannot be run: /nowhere/mpsr-launch: No such file or directory" in done.stderr


def places(slurm: Site, text: str) -> str:
    """RUN is the runtime directory, LIB that of the supervisor and its library."""
    return text.replace("RUN", str(slurm.run)).replace("LIB", str(ROOT / "build"))


BINDS = "echo ${APPTAINER_BIND-none} ${SINGULARITY_BIND-none}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "RUN,LIB RUN,LIB"),
        ({"APPTAINER_BIND": "/data:/d"}, "/data:/d,RUN,LIB /data:/d,RUN,LIB"),
        ({"SINGULARITY_BIND": "/data"}, "/data,RUN,LIB /data,RUN,LIB"),
        ({"APPTAINER_BIND": "/a", "SINGULARITY_BIND": "/s"}, "/a,RUN,LIB /s,RUN,LIB"),
        ({"APPTAINER_BIND": "RUN:/elsewhere,/a"}, "RUN:/elsewhere,/a,LIB RUN:/elsewhere,/a,LIB"),
        ({"APPTAINER_BIND": "RUN2"}, "RUN2,RUN,LIB RUN2,RUN,LIB"),
        ({"APPTAINER_BIND": "LIB:LIB:ro"}, "LIB:LIB:ro,RUN LIB:LIB:ro,RUN"),
    ],
)
def test_apptainer_and_singularity_are_told(slurm: Site, before: dict[str, str], after: str) -> None:
    env = {name: places(slurm, value) for name, value in before.items()}
    done = slurm.cluster.run("srun", "-Q", "--mps", "bash", "-c", BINDS, env=env)
    assert done.stdout == places(slurm, after) + "\n"


def test_they_are_told_of_nothing_without_mps(slurm: Site, plugin: Callable[..., None]) -> None:
    env = {"APPTAINER_BIND": "/data"}
    _, said = slurm.cluster.batch(
        f"{BINDS}; srun -Q bash -c '{BINDS}'; srun -Q --mps=off bash -c '{BINDS}'", "--mps", env=env
    )
    assert said == places(slurm, "/data,RUN,LIB /data,RUN,LIB\n") * 2 + "/data /data\n"
    plugin("apptainer=off")
    done = slurm.cluster.run("srun", "-Q", "--mps", "bash", "-c", BINDS, env=env)
    assert done.stdout == "/data none\n"


def test_slurms_own_containers_are_refused(slurm: Site) -> None:
    bundle = slurm.cluster.dir / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    (bundle / "config.json").write_text('{"root": {"path": "rootfs"}, "process": {"args": ["x"], "env": []}}')
    runtime = slurm.cluster.dir / "runtime"
    runtime.write_text("#!/bin/sh\necho in a container\n")
    runtime.chmod(0o755)
    words = "".join(f'RunTime{verb}="/bin/true"\n' for verb in ("Query", "Kill", "Delete"))
    (slurm.cluster.dir / "oci.conf").write_text(f'{words}RunTimeRun="{runtime} %b"\n')
    plain, ours = (slurm.cluster.run("srun", "-Q", *ask, f"--container={bundle}", "true") for ask in ((), ("--mps",)))
    assert plain.stdout == "in a container\n"
    assert ours.returncode == 1
    assert ours.stdout == ""
    assert f"mpsr: --container: cannot be had with --mps: {bundle}" in ours.stderr


def test_a_job_that_did_not_ask_is_left_alone(container: Container) -> None:
    container.order("ours")
    done = container.run(mounted=False, mps=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"uid {UID}, /usr missing, pipe none, name inside\n"
