"""`mpsr run` where there is no Slurm and no GPU: a program that is killed goes on from its last commit."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.state_harness import LIMIT, ROOT, eventually
from tests.conformance.test_session_host import COUNTS, whole

RUN = [sys.executable, "-m", "resilience.cli.main", "run", "--", sys.executable]
ONCE = """
import os, sys
marker = sys.argv.pop(1)
if os.path.exists(marker): sys.argv[1] = "-1"
else: open(marker, "w").close()
"""


def environ(directory: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(directory)}


@pytest.mark.parametrize("kind", ["auto", "numpy"])
@pytest.mark.parametrize("point", ["", "between"])
def test_a_killed_program_goes_on_from_its_commit(tmp_path: Path, kind: str, point: str) -> None:
    argv = [*RUN, "-c", ONCE + COUNTS, str(tmp_path / "marker"), "5", kind, *([point] if point else [])]
    done = subprocess.run(argv, env=environ(tmp_path), capture_output=True, text=True, timeout=3 * LIMIT, check=False)
    assert (done.returncode, done.stdout) == (0, f"kept{whole(kind)}"), done.stderr
    assert "ended by SIGKILL: started again from commit 6" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["marker"], "nothing is left"


def test_one_that_dies_again_and_again_is_left(tmp_path: Path) -> None:
    body = "import os, resilience\nwith resilience.session() as s:\n    s.array('u', 4); s.wait(); os.kill(os.getpid(), 11)"
    done = subprocess.run(
        [*RUN, "-c", body], env=environ(tmp_path), capture_output=True, text=True, timeout=3 * LIMIT, check=False
    )
    assert done.returncode == -signal.SIGSEGV
    assert done.stderr.count("started again from commit 0") == 3
    assert "died 3 times more without a commit in between: not started again" in done.stderr


@pytest.mark.parametrize(
    ("body", "status"), [("import sys; sys.exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)]
)
def test_without_a_session_it_ends_as_the_program_does(tmp_path: Path, body: str, status: int) -> None:
    done = subprocess.run([*RUN, "-c", body], env=environ(tmp_path), capture_output=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (status, b"")


def test_a_signal_ends_it_for_good(tmp_path: Path) -> None:
    body = "import resilience, sys\nwith resilience.session() as s:\n    s.host('b'); s.wait(); print('on', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [*RUN, "-c", body], env=environ(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert select.select([running.stdout], [], [], LIMIT)[0]
        running.send_signal(signal.SIGTERM)
        eventually("its end", lambda: running.poll() is not None)
        assert running.stderr is not None
        assert (running.returncode, running.stderr.read()) == (-signal.SIGTERM, b"")
