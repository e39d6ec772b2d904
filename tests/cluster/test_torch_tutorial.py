"""The tutorial's PyTorch programs on a cluster, beside a culprit: they end as their plain forms do, and nobody is asked again.

torch's CPU build computes; what the programs keep lies on the simulated GPU, whose fault ends them.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import ROOT, Sandbox, wait_for
from tests.demo.stage import Stage

pytest.importorskip("torch", reason="torch is not installed (make torch): its tutorial is not tried here")
pytestmark = [pytest.mark.cluster, pytest.mark.sim, pytest.mark.timeout(400)]
TUTORIAL = "docs/tutorial"
ONE = {"OMP_NUM_THREADS": "1"}  # sums of one thread are the same wherever they are made
QUESTIONS = 100
"""Some seconds of them: the fault comes in between."""
SITE = "  recovery:\n    restore_timeout: 300\n"
"""Seconds: torch is imported anew, on a machine that may be busy."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, site=SITE) as sandbox:
        yield sandbox


@pytest.fixture
def stage(cluster: Sandbox) -> Iterator[Stage]:
    it = Stage(cluster)
    yield it
    it.clear()
    wait_for(lambda: not cluster.residue(), 20, lambda: str(cluster.residue()))


def plain(*words: str) -> str:
    """The last line of a program without a session, here."""
    command = [sys.executable, str(ROOT / TUTORIAL / words[0]), *words[1:]]
    done = subprocess.run(command, env=os.environ | ONE, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.splitlines()[-1]


def task(stage: Stage, *words: str) -> str:
    """The shell's words that run a program in a step."""
    python = shlex.quote(stage.sandbox.plan.python)
    return f"OMP_NUM_THREADS=1 srun {python} -m tests.gpusim.torch_here {REPO}/{TUTORIAL}/{' '.join(words)}"


def submit(stage: Stage, *options: str, script: str) -> int:
    return stage.sandbox.sbatch("--mps", "-wn0", "--gres=shard:1", *options, script=f"cd {REPO}\n{script}")


def ended(stage: Stage, job: int) -> str:
    """The job's last line. It was hit and went on from its kept state, on its standby if that was there by then."""
    fields = stage.sandbox.wait(job, timeout=200)
    said = stage.sandbox.output(job)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0"), said
    assert re.search("recovered on standby|restored from kept state", fields["AdminComment"]), fields["AdminComment"]
    return [line for line in said.splitlines() if not line.startswith("mpsr")][-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "count", "under_way", "standby"),
    [("vision", "16", "epoch 1:", "off"), ("language", "600", "step 199:", "on")],
)
def test_training(program: str, count: str, under_way: str, standby: str, stage: Stage) -> None:
    job = submit(stage, f"--mps-standby={standby}", script=task(stage, f"train/{program}.py", count))
    wait_for(lambda: under_way in stage.sandbox.output(job), 200, lambda: stage.sandbox.output(job))
    culprit = stage.culprit("illegal-address", "--gres=shard:1")
    assert ended(stage, job) == plain(f"train/{program}_plain.py", count)
    stage.end(culprit)


@pytest.mark.slow
def test_serving(stage: Stage) -> None:
    client = shlex.join([stage.sandbox.plan.python, f"{REPO}/{TUTORIAL}/serve/client.py", "7001", str(QUESTIONS)])
    job = submit(stage, script=f"{task(stage, 'serve/serve.py', '7001')} &\n{client}\nwait $!")
    wait_for(lambda: "answered" in stage.sandbox.output(job), 200, lambda: stage.sandbox.output(job))
    culprit = stage.culprit("illegal-address", "--gres=shard:1")
    said = ended(stage, job)
    server = subprocess.Popen(
        [sys.executable, str(ROOT / TUTORIAL / "serve/serve_plain.py"), "7002"], env=os.environ | ONE
    )
    words = [sys.executable, str(ROOT / TUTORIAL / "serve/client.py"), "7002", str(QUESTIONS)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=200)
    server.wait(60)
    assert said == done.stdout.splitlines()[-1]
    stage.end(culprit)
