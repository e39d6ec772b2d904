"""Real MPI ranks on this machine: MPICH's mpiexec, mpi4py, a keeper for each rank where a test wants them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.state_harness import ROOT, eventually

RANKS = 3
LIMIT = 60.0


class Mpi:
    """Ranks of tests/programs/ranks.py in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spill = directory / "spill"
        self.restart = 0
        self.spill_ms = 3_600_000
        self.keepers: list[subprocess.Popen[bytes]] = []
        library = directory / "lib"  # where mpi4py's wheel looks for what Debian names after its maker
        library.mkdir()
        (library / "libmpi.so.12").symlink_to(next(Path("/usr/lib").glob("*/libmpich.so.12")))
        self.library = library

    def environ(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "LD_LIBRARY_PATH": str(self.library),
            "MPI4PY_MPIABI": "mpich",
            "OMP_NUM_THREADS": "1",
            "MPSR_ALONE": "1",
            "MPSR_SPILL": str(self.spill),
            "MPSR_SPILL_MS": str(self.spill_ms),
            "SLURM_JOB_ID": "77",
            "SLURM_RESTART_COUNT": str(self.restart),
            **more,
        }

    def run(self, *words: object, ranks: int = RANKS) -> tuple[int, str, str]:
        """Exit status, output, errors."""
        program = [sys.executable, str(ROOT / "tests/programs/ranks.py"), str(self.directory), *map(str, words)]
        command = ["mpiexec.mpich", "-n", str(ranks), *program]
        done = subprocess.run(command, env=self.environ(), capture_output=True, text=True, timeout=LIMIT, check=False)
        return done.returncode, done.stdout, done.stderr

    def goes_on(self, *words: object) -> tuple[str, int]:
        """Run it; where all ranks have gone on from, which must be one place, and the step."""
        _, out, err = self.run(*words)
        first = out.splitlines()[0].split() if out else []
        assert first[:1] == ["from"], out + err
        assert len(set(first[2::2])) == 1, out
        return first[1], int(first[2])

    def start_keepers(self, *ranks: int) -> None:
        for rank in ranks or range(RANKS):
            (self.directory / f"k{rank}").unlink(missing_ok=True)
            command = [
                sys.executable,
                "-E",
                "-m",
                "resilience.state.keeper",
                "--socket",
                str(self.directory / f"k{rank}"),
            ]
            environ = {"MPSR_TOKEN": f"token{rank}{self.restart}", "MPSR_STANDBY_TOKEN": "s"}
            self.keepers.append(subprocess.Popen(command, cwd=ROOT, env=environ))
        eventually("keepers", lambda: all((self.directory / f"k{rank}").exists() for rank in range(RANKS)))

    def spill_all(self) -> None:
        """What the supervisors do before a requeue."""
        command = [sys.executable, "-E", "-m", "resilience.state.spill"]
        spillers = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environ(
                    MPSR_KEEPER=str(self.directory / f"k{rank}"),
                    MPSR_TOKEN=f"token{rank}{self.restart}",
                    SLURM_PROCID=str(rank),
                ),
            )
            for rank in range(RANKS)
        ]
        assert [spiller.wait(LIMIT) for spiller in spillers] == [0] * RANKS

    def requeue(self) -> None:
        """The job starts again elsewhere: no keeper has anything, and the spills are there."""
        self.close()
        self.restart += 1

    def close(self) -> None:
        for keeper in self.keepers:
            keeper.kill()
            keeper.wait()
        self.keepers = []
        for rank in range(RANKS):
            (self.directory / f"k{rank}").unlink(missing_ok=True)


@pytest.fixture
def mpi(tmp_path: Path) -> Iterator[Mpi]:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed (make mpi)", exc_type=ImportError)
    if not shutil.which("mpiexec.mpich"):
        pytest.skip("no MPICH on this machine (Debian: mpich)")
    made = Mpi(tmp_path)
    yield made
    made.close()
