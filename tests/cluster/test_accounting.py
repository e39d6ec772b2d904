"""What slurmdbd keeps of a job's account, and whose word it is that a job is not requeued: JobRequeue=0.

slurmdbd and MariaDB are Debian's (28 MB, which `make setup` does not fetch): without them these are left out.
"""

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.cluster.accounting import what_is_missing
from tests.cluster.sandbox import ROOT, Sandbox, wait_for
from tests.demo.stage import Job, Stage

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.sim,
    pytest.mark.slow,
    pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing()),
]
SITE = "billed to\nX, ticket 7"


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Stage, Job, Job, Job]]:
    """After one fault: a solver that recovered and has a site's comment, one that was to be requeued, and the culprit."""
    with Sandbox(nodes=1, gpus=1, accounting=True, conf=["JobRequeue=0"]) as sandbox:
        stage = Stage(sandbox)
        solver = stage.solver("--gres=shard:1")
        refused = stage.solver("--gres=shard:1", "--mps-recover=requeue")
        stage.under_way([solver, refused])
        sandbox.good(["scontrol", "update", f"JobId={solver.number}", f"AdminComment={SITE}"])
        culprit = stage.culprit("illegal-address", "--gres=shard:1")
        for job in (culprit, refused, solver):
            stage.end(job)
        yield stage, solver, refused, culprit


def documented(sandbox: Sandbox, job: Job) -> str:
    """What the command says that docs/how-to/read-logs.md gives, run by the job's user."""
    text = (ROOT / "docs/how-to/read-logs.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"`(sacct [^`]*)`", text)
    argv = shlex.split(command.replace("4711", str(job.number)))
    return wait_for(lambda: sandbox.good(argv, user=job.user).removesuffix("\n"), 20)


def test_the_documented_command_shows_the_whole_line(kept: tuple[Stage, Job, Job, Job]) -> None:
    stage, _, _, culprit = kept
    line = documented(stage.sandbox, culprit)
    (incident,) = {entry["incident"] for entry in stage.sandbox.journal() if entry["event"] == "incident.opened"}
    what = "illegal address, Xid 31|GPU fault"  # NVIDIA's Xid line may come after the account
    assert re.match(rf"mpsr: caused a fault in step 0 task 0 \((?:{what})\) on GPU-", line)
    assert line.endswith(f"(incident {incident})")


def test_what_the_site_wrote_is_kept_before_it(kept: tuple[Stage, Job, Job, Job]) -> None:
    stage, solver, _, culprit = kept
    line = documented(stage.sandbox, solver)
    assert line.startswith(f"{SITE} | mpsr: 1 fault by job {culprit.number} step 0 task 0")
    assert re.search(r": recovered on standby in [0-9.]+ ms \(incident [0-9a-f]+-\d+\)\Z", line)


def test_a_sites_word_is_not_told_as_the_users(kept: tuple[Stage, Job, Job, Job]) -> None:
    stage, _, refused, _ = kept
    log = stage.sandbox.read(f"/home/alice/mpsr-{refused.number}.log")
    for text in (documented(stage.sandbox, refused), log):
        assert "requeue: JobRequeue=0 in slurm.conf, and the job was not submitted with --requeue" in text
        assert "--no-requeue" not in text
