"""Jobs in containers lose nothing to their neighbours: a solver on its standby, an unmodified program started again.

Slurm, supervisor, agent, keeper and namespaces are real. The GPU is simulated, and two stand-ins take the place of what
tests cannot fetch: tests/containers/apptainer (bubblewrap below it) and tests/containers/standin.c for pyxis.
"""

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import Sandbox, wait_for
from tests.containers.parts import no_containers, standin
from tests.demo import faults, programs
from tests.demo.result import Result
from tests.demo.stage import NODE, Job, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

IMAGE = "/home/alice/image"
SYSTEM = ("/usr", "/etc", "/opt")
"""What the image shows of this machine, in place of an own distribution."""
MOUNTS = (*SYSTEM, "/home", "/run/mpsr", "/run/simgpu")
PYXIS = f"--container-image={IMAGE} --container-mounts=" + ",".join(f"{name}:{name}" for name in MOUNTS)
APPTAINER = f"{REPO}/tests/containers/apptainer exec --nv"
WAYS = {
    # name: (options of srun, what stands before the program)
    "apptainer": ("", f"{APPTAINER} {IMAGE}"),
    "apptainer --pid": ("", f"{APPTAINER} --pid {IMAGE}"),
    "pyxis": (PYXIS, ""),
    "pyxis, remapped root": (f"{PYXIS} --container-remap-root", ""),
}
KINDS = ("user", "mnt", "pid", "ipc")
ASK = ("--mps", f"-w{NODE}", "--gres=shard:2")


@pytest.fixture(scope="module")
def stage(cluster: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The shared cluster with the stand-in for pyxis behind our plugin, and an image that is the user's."""
    if reason := no_containers():
        pytest.skip(reason)
    plugin = Path(standin(tmp_path_factory.mktemp("plugin")))
    place = cluster.path("/run/sandbox/standin.so")
    place.write_bytes(plugin.read_bytes())
    stack = cluster.path("/etc/slurm/plugstack.conf")
    before = stack.read_text()
    stack.write_text(f"{before}optional /run/sandbox/standin.so\n")
    links = "; ".join(f"ln -s usr/{name} {IMAGE}/{name}" for name in ("bin", "lib", "lib64", "sbin"))
    places = " ".join(f"{IMAGE}{name}" for name in (*MOUNTS, "/proc", "/sys", "/dev", "/tmp"))
    cluster.good(["bash", "-c", f"mkdir -p {places}; {links}"], user="alice")
    yield Stage(cluster)
    stack.write_text(before)


def submit(stage: Stage, way: str, argv: list[str], stem: str, *, plain: bool = False) -> Job:
    options, before = WAYS[way]
    binds = ",".join(SYSTEM)
    script = f"export APPTAINER_BIND={binds}\nexec srun {options} {before} {shlex.join(argv)}\n"
    number = stage.sandbox.sbatch(*ASK, script=script)
    return Job(number=number, user="alice", stems=[stem], plain=plain)


def program(stage: Stage, job: Job) -> int:
    """The job's program on the GPU."""
    processes = stage.sandbox.processes()
    return next(pid for pid in stage.sandbox.on_gpu(NODE) if job.stems[0] in processes.get(pid, ""))


def rooms(stage: Stage, job: Job) -> set[str]:
    """Where the job's program sees a tmpfs below /run/mpsr."""
    mounts = (line.split() for line in stage.sandbox.good(["cat", f"/proc/{program(stage, job)}/mounts"]).splitlines())
    return {words[1] for words in mounts if words[2] == "tmpfs" and words[1].startswith("/run/mpsr/")}


def namespaces(stage: Stage, job: Job) -> set[str]:
    """Those of the job's program on the GPU that are not the node's."""
    pid = program(stage, job)
    links = stage.sandbox.good(["readlink", *(f"/proc/{of}/ns/{kind}" for kind in KINDS for of in (1, pid))]).split()
    return {kind for kind, here, there in zip(KINDS, links[::2], links[1::2], strict=True) if here != there}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_neighbours_fault(stage: Stage, way: str) -> None:
    plan = stage.sandbox.plan
    result = Result(name=way, gpu="simulated")
    name = f"/home/alice/in-{len(way)}"
    references = stage.reference(), stage.reference(plain=True)
    since = time.monotonic()
    culprit = submit(stage, way, [*programs.culprit(plan, "illegal-address"), "--when", f"{name}.go"], "")
    wait_for(lambda: "culprit: ready" in stage.output(culprit), 60, lambda: stage.output(culprit))
    solver = submit(stage, way, programs.heat2d(plan, stem=f"{name}-s", pace_ms=30), f"{name}-s")
    plain = submit(stage, way, programs.plain(plan, stem=f"{name}-p", pace_ms=30), f"{name}-p", plain=True)
    stage.under_way([solver])
    wait_for(lambda: stage.marks(plain, since), 60, lambda: stage.output(plain))
    apart = {"user", "mnt", "pid"} if way == "apptainer --pid" else {"user", "mnt"}
    assert namespaces(stage, solver) == namespaces(stage, plain) == apart
    for job in (solver, plain):
        assert {f"/run/mpsr/{NODE}/jobs/{job.number}", f"/run/mpsr/{NODE}/d/u64101"} <= rooms(stage, job)
    stage.go(name)
    assert stage.end(culprit)["JobState"] == "FAILED"
    for job, reference in zip((solver, plain), references, strict=True):
        fields = stage.end(job)
        assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0"), stage.output(job)
        assert stage.digest(job.stems[0]) == reference
    assert faults.named(stage, culprit.number, since)
    actions = {event["action"] for event in stage.of_job(solver, since, "verdict")}
    assert actions == {"promote"}, stage.journal(since)
    assert {event["action"] for event in stage.of_job(plain, since, "verdict")} == {"relaunch"}
    assert "recovered on standby" in stage.sandbox.read(f"/home/alice/mpsr-{solver.number}.log")
    faults.finish(stage, result, [solver, plain, culprit], since)
    assert not result.broken


def test_a_session_refuses_a_container_without_the_servers(stage: Stage) -> None:
    """A plain program would run outside MPS there: the driver says nothing, so the supervisor does (tests/spank)."""
    argv = shlex.join(programs.heat2d(stage.sandbox.plan, stem="/home/alice/out"))
    bare = f"env APPTAINER_BIND={','.join(SYSTEM)} {APPTAINER} {IMAGE}"
    done = stage.sandbox.srun(*ASK, "-Q", *shlex.split(f"{bare} {argv}"))
    assert done.status == 3
    assert "the job asked for MPS, but this process runs outside it" in done.err
