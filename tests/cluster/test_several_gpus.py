"""Jobs with several GPUs a node: each task sees the GPUs that Slurm gave it, in Slurm's order, with --mps as without.

The table is what Slurm does by itself: every row is run plain first, and has to be the same under MPS. A row says whether the
job gets one pair of servers over its GPUs, or one for each.
"""

import importlib.util
import shlex
import time
from collections.abc import Iterator

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import CommandDone, Sandbox, wait_for
from tests.demo import programs
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

JOB, GPU = "over all GPUs of the job", "one for each GPU"
TABLE = (
    (("--gres=gpu:2", "-n1"), JOB),
    (("--gpus-per-task=2", "-n2"), JOB),
    (("--gres=gpu:4", "-n4"), JOB),
    (("--gres=gpu:4", "-n4", "--gpu-bind=none"), JOB),
    (("--gres=gpu:4", "-n2", "--gpu-bind=mask_gpu:0x3,0xc"), JOB),
    (("--gpus-per-task=1", "-n4"), GPU),
    (("--gres=gpu:4", "-n4", "--gpu-bind=map_gpu:3,2,1,0"), GPU),
    (("--gpus=2", "-n4", "--ntasks-per-gpu=2"), GPU),
)
REST = (
    (("--gpus-per-task=2", "-n1"), JOB),
    (("--gpus=2", "-n2", "--gpu-bind=closest"), JOB),
    (("--gres=gpu:4", "-n4", "--gpu-bind=single:1"), GPU),
    (("--gres=gpu:4", "-n2", "--gpu-bind=map_gpu:2,3"), GPU),
    (("--gres=gpu:2", "-n4", "--ntasks-per-gpu=2"), GPU),
    (("--gpus-per-node=2", "-n1"), JOB),
    (("--exclusive", "--gpus-per-node=4", "-n2"), JOB),
    (("--gres=gpu:4", "-n2", "--gpu-bind=mask_gpu:0xc,0x3"), JOB),
    (("--gres=gpu:4", "-n2", "--overlap", "--gpu-bind=single:1"), GPU),
)


@pytest.fixture(scope="module")
def node() -> Iterator[Sandbox]:
    """One node with four GPUs."""
    with Sandbox(nodes=1, gpus=4) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _nothing_stays(node: Sandbox) -> Iterator[None]:
    yield
    wait_for(lambda: not node.residue(), 20, lambda: str(node.residue()))


def program(node: Sandbox, *words: str) -> list[str]:
    return [node.plan.python, f"{REPO}/tests/programs/gpus.py", *words]


def seen(done: CommandDone) -> dict[str, str]:
    """By task, or rank, its GPUs and whether it is under MPS."""
    assert done.status == 0, done
    return dict(line.split(": ", 1) for line in done.out.splitlines())


def step(node: Sandbox, *options: str, words: tuple[str, ...] = ()) -> CommandDone:
    return node.srun("-Q", *options, *program(node, *words))


def servers_of_last_job(node: Sandbox) -> str:
    opened = [event for event in node.journal() if event["event"] == "job.opened"][-1]
    return JOB if "servers=job" in opened["options"] else GPU


def as_without(node: Sandbox, options: tuple[str, ...], servers: str) -> None:
    plain, ours = step(node, *options), step(node, "--mps", *options)
    assert {task: what.removesuffix(" mps") for task, what in seen(ours).items()} == {
        task: what.removesuffix(" plain") for task, what in seen(plain).items()
    }
    assert (ours.err, servers_of_last_job(node)) == (plain.err, servers)


@pytest.mark.parametrize(
    ("options", "servers"), TABLE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_task_sees_what_slurm_gave_it(node: Sandbox, options: tuple[str, ...], servers: str) -> None:
    as_without(node, options, servers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "servers"), REST, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_the_rest_of_the_table(node: Sandbox, options: tuple[str, ...], servers: str) -> None:
    as_without(node, options, servers)


def test_four_ranks_in_one_task(node: Sandbox) -> None:
    """torchrun: one task, a process for each GPU."""
    plain, ours = (seen(step(node, *ask, "--gres=gpu:4", "-n1", words=("--ranks", "4"))) for ask in ((), ("--mps",)))
    assert len(set(ours.values())) == 4
    assert ours == {rank: what.replace(" plain", " mps") for rank, what in plain.items()}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_torchrun_itself_in_one_task(node: Sandbox, ranks: int) -> None:
    if not importlib.util.find_spec("torch"):
        pytest.skip("no torch here (make torch)")
    each = f"exec {shlex.join(program(node))} --device $LOCAL_RANK"
    torchrun = [node.plan.python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    plain, ours = (
        seen(node.srun("-Q", *ask, f"--gres=gpu:{ranks}", "-n1", *torchrun, "--no-python", "bash", "-c", each))
        for ask in ((), ("--mps",))
    )
    assert len(set(ours.values())) == ranks
    assert ours == {rank: what.replace(" plain", " mps") for rank, what in plain.items()}


def test_a_batch_script_sees_all_of_its_gpus(node: Sandbox) -> None:
    script = "\n".join(shlex.join(program(node, *words)) for words in ((), ("--ranks", "3")))
    said = {}
    for ask in ((), ("--mps",)):
        job = node.sbatch(*ask, "--gres=gpu:3", "-n3", script=script)
        assert node.wait(job)["JobState"] == "COMPLETED", node.output(job)
        lines = [line for line in node.output(job).splitlines() if "GPU-" in line]
        said[ask] = sorted(line.removesuffix(" mps").removesuffix(" plain") for line in lines)
        assert all(line.endswith(" mps" if ask else " plain") for line in lines)
    assert said["--mps",] == said[()]


def test_a_step_of_a_part_of_the_job(node: Sandbox) -> None:
    """Steps with one GPU, and with two, of a job with three: they join the servers of the job."""
    steps = [
        shlex.join(["srun", "--exact", *ask, *program(node)])
        for ask in (("-n1", "--gres=gpu:1"), ("-n1", "--gres=gpu:2"))
    ]
    said = {}
    for ask in ((), ("--mps",)):
        job = node.sbatch(*ask, "--gres=gpu:3", "-n3", script="\n".join(steps))
        assert node.wait(job)["JobState"] == "COMPLETED", node.output(job)
        said[ask] = node.output(job).replace(" mps", "").replace(" plain", "")
    assert said["--mps",] == said[()]
    assert servers_of_last_job(node) == JOB


def test_a_task_that_cannot_have_them_all_is_told_how(node: Sandbox) -> None:
    done = step(node, "--mps", "--mps-servers=gpu", "--gres=gpu:2", "-n2")
    assert [what.count("GPU-") for what in seen(done).values()] == [1, 1]
    assert len(set(seen(done).values())) == 2, "tasks spread over the GPUs"
    assert done.err.splitlines() == [
        "mpsr: gpus: each task sees one of its 2 GPUs, which have MPS servers of their own "
        "(sbatch --mps-servers=job: one over all of them)"
    ]


def test_a_batch_script_that_cannot_is_told_too(node: Sandbox) -> None:
    job = node.sbatch("--mps", "--gpus-per-task=1", "-n3", script=shlex.join(program(node)))
    assert node.wait(job)["JobState"] == "COMPLETED", node.output(job)
    assert "see one of the job's 3 GPUs" in node.output(job)
    assert node.output(job).count("GPU-") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("mpirun -n 3 ./a", 1),
        ("time mpiexec.hydra -n 3 ./a", 1),
        ("mpirun -n 3 mpsr run ./a", 0),
        ("# mpirun -n 3 ./a", 0),
        ("srun -n1 true; ./my-mpirun.sh", 0),
    ],
)
def test_ranks_without_supervisors_that_share_a_gpu_are_told_of(node: Sandbox, command: str, told: int) -> None:
    """In a script that has an srun, too, and so gets no other hint."""
    job = node.sbatch("--mps", "--gpus-per-task=1", "-n3", script=f"srun -n1 true\nexit 0\n{command}")
    assert node.wait(job)["JobState"] == "COMPLETED", node.output(job)
    line = "mpsr: batch script: ranks of mpiexec share one of the job's 3 GPUs"
    assert (node.output(job).count(line), node.output(job).count("mpsr: batch")) == (told, told)


def uuid_of(node: Sandbox, minor: int) -> str:
    row = next(
        line
        for line in node.read(f"{node.plan.simgpu('n0')}/host.conf").splitlines()
        if line.startswith(f"gpu={minor} ")
    )
    return row.split("uuid=")[1].split()[0]


@pytest.mark.slow
def test_sessions_of_both_tasks_go_on_bit_for_bit(node: Sandbox) -> None:
    stage = Stage(node)
    reference = stage.reference()
    since = time.monotonic()
    text, stem = stage.late_culprit("illegal-address")
    job = stage.solver("--gres=gpu:2", "-n3", "--mem=300", tasks=2, also=text)
    stage.under_way([job])
    stage.go(stem)
    fields = stage.end(job)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0"), stage.output(job)
    assert [stage.digest(one) for one in job.stems] == [reference] * 2
    assert node.read(f"{stem}.status").strip() == "1"
    assert [row["action"] for row in stage.journal(since, "recovered")] == ["promote"] * 2
    opened = [row for row in stage.journal(since, "domain.opened") if row["domain"] == f"j{job.number}"]
    assert sorted(row["color"] for row in opened) == ["a", "b"], "one pair, over both"
    assert stage.clean([job.number], since) == []


@pytest.mark.slow
def test_ranks_in_one_task_are_started_again_as_a_whole(node: Sandbox) -> None:
    """As torchrun has them: each uses a GPU of its own, and when one fails the task does. The culprit is on the second."""
    stage = Stage(node)
    since = time.monotonic()
    run = [programs.plain(node.plan, stem=f"/home/alice/rank{rank}", steps=6000) for rank in (0, 1)]
    ranks = "\n".join(
        f'CUDA_VISIBLE_DEVICES={rank} {shlex.join(words)} & pids="$pids $!"' for rank, words in enumerate(run)
    )
    inner = f"pids=\n{ranks}\nfor pid in $pids; do wait $pid || exit 1; done"
    culprit = f"CUDA_VISIBLE_DEVICES=1 exec {shlex.join(programs.culprit(node.plan, 'illegal-address'))}"
    script = "\n".join(
        [
            f"srun -n1 --overlap --mem=100 bash -c {shlex.quote(inner)} &",
            "until [ -e /home/alice/rank0.marks ] && [ -e /home/alice/rank1.marks ]; do sleep 0.05; done",
            f"srun -n1 --overlap --mem=100 bash -c {shlex.quote(culprit)}",
            "wait %1",
        ]
    )
    job = node.sbatch("--mps", "--gres=gpu:2", "-n2", script=script)
    fields = node.wait(job, timeout=60)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0"), node.output(job)
    assert {len(node.read(f"/home/alice/rank{rank}.marks").split()) for rank in (0, 1)} == {2}
    assert [row["action"] for row in stage.journal(since, "recovered")] == ["relaunch"]
    assert f"Xid 31) on {uuid_of(node, 1)}: " in fields["AdminComment"], "the Xid says which of the GPUs it was"


@pytest.mark.slow
def test_the_drill_holds_on_two_gpus(node: Sandbox) -> None:
    done = node.run(
        ["/opt/bin/mpsr", "drill", "--yes", "--gres", "gpu:2", "--python", node.plan.python], user="alice", timeout=120
    )
    assert done.status == 0, done.out + done.err
    assert "all of it held" in done.out


def test_status_shows_what_a_server_is_over(node: Sandbox) -> None:
    job = node.sbatch("--mps", "--gres=gpu:2", script="touch ~/up; until [ -e ~/down ]; do sleep 0.05; done")
    try:
        wait_for(lambda: node.path("/home/alice/up").exists(), 20)
        said = node.run(["/opt/bin/mpsr", "status"], node="n0").out
        assert f"server j{job}/g0/a: ACTIVE, over GPUs 0,1, 0 clients, new tasks join it" in said
        assert f"server j{job}/g0/b: ACTIVE, over GPUs 0,1, 0 clients" in said
        assert "GPU 0,1" in said
    finally:
        node.path("/home/alice/down").touch()
        node.wait(job)


def test_what_does_not_go_together_is_refused_with_the_way_out(node: Sandbox) -> None:
    """Servers over several GPUs have no SM partitions, which alone would isolate here."""
    done = step(node, "--mps", "--mps-require=isolation", "--gres=gpu:2", "-n1")
    assert done.status != 0
    assert "--mps-require=isolation" in done.err
