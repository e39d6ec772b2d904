"""Batch scripts: the options that the plugin finds (test_twins.py holds C to the same cases), what each line starts, and what
`mpsr explain --job-script` says of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.cli import explain_script
from resilience.cli.main import main
from resilience.contract import exit_code
from resilience.model.errors import ConfigError
from resilience.model.settings import Options, PartitionRules
from resilience.parse import job_script

SCRIPTS = json.loads((Path(__file__).resolve().parents[1] / "data/scripts.json").read_text(encoding="utf-8"))
HEAD = "#!/bin/bash\n#SBATCH --mps\n"
PLAIN = "under MPS without a supervisor: not recovered"
RUNGS = "recovered by standby (with a session), restore (with a session), relaunch, requeue"


@pytest.mark.parametrize("row", SCRIPTS["scripts"], ids=lambda row: row["text"][12:40])
def test_the_options_of_a_script(row: dict[str, Any]) -> None:
    assert [[one.key, one.value] for one in job_script.options(row["text"])] == row["options"]
    assert job_script.supervised(row["text"]) == row["supervised"]


@given(st.text("#SBATCH --mps=srun ;|&<'\"\\\n\tE()", max_size=200))
def test_any_script_is_read(text: str) -> None:
    job_script.commands(text)
    job_script.options(text)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a b; c && d || e | f & g", [["a", "b"], ["c"], ["d"], ["e"], ["f"], ["g"]]),
        ("X=1 Y='2 3' ./a --b='c d'", [["./a", "--b=c d"]]),
        ("if ./a; then ./b; fi", [["./a"], ["./b"], ["fi"]]),
        ("timeout -k 5 60 nice -n 10 ./a -n 1", [["./a", "-n", "1"]]),
        ("(cd x; ./a)", [["cd", "x"], ["./a"]]),
        ("./a \\\n  --b", [["./a", "--b"]]),
        ("cat <<EOF\n./no\nEOF\n./yes", [["cat", "<<EOF"], ["./yes"]]),
        ("# ./no\n./yes # ./no", [["./yes"]]),
        ("A=1", []),
        ("echo 'half", [["echo", "'half"]]),
    ],
)
def test_what_a_line_starts(line: str, found: list[list[str]]) -> None:
    assert [list(one.words) for one in job_script.commands(line)] == found


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("srun ./a", f"each task has a supervisor: {RUNGS}"),
        ("srun --mpi=pmix ./a", "ranks of an MPI program come back with their whole job only, by requeue"),
        ("srun --mps=off ./a", "outside MPS"),
        ("srun --multi-prog conf", PLAIN),
        ("srun --container=/b ./a", "refused: Slurm's own --container"),
        ("mpsr run ./a", f"has a supervisor: {RUNGS}"),
        ("/opt/mpsr-launch ./a", f"has a supervisor: {RUNGS}"),
        ("mpirun -n 4 ./a", "its ranks are under MPS without supervisors of their own"),
        ("mpiexec.hydra -n 4 mpsr run ./a", "each rank has a supervisor and its node's GPU of its place"),
        ("python train.py", f"{PLAIN}, unless it uses resilience.session()"),
        ("exec ./a", PLAIN),
        ("env -i ./a", "env -i takes CUDA_MPS_PIPE_DIRECTORY away"),
        ("CUDA_MPS_PIPE_DIRECTORY=/x ./a", "changes CUDA_MPS_PIPE_DIRECTORY"),
        ("unset CUDA_MPS_PIPE_DIRECTORY", "changes CUDA_MPS_PIPE_DIRECTORY"),
        ("nvidia-cuda-mps-control -d", "starts or ends MPS itself"),
        ("ssh n1 ./a", "outside MPS (use srun)"),
        ("apptainer exec x.sif ./a", "the container must show /run/mpsr"),
    ],
)
def test_what_is_said_of_a_line(line: str, said: str) -> None:
    of_line = [one for one in explain_script.lines(f"{HEAD}{line}\n", Options()) if one.startswith("line 3: ")]
    assert len(of_line) == 1, of_line
    assert said in of_line[0]


@pytest.mark.parametrize(
    "line", ["cd /x", "module load cuda", "export A=1", "echo done > log", "for i in 1 2; do", "wait"]
)
def test_nothing_is_said_of_a_line_that_starts_nothing(line: str) -> None:
    assert not [one for one in explain_script.lines(f"{HEAD}{line}\n", Options()) if one.startswith("line 3: ")]


def test_options_and_partition_decide() -> None:
    site = Options(partitions={"shared": PartitionRules(defaults={"mps": "on", "recover": "relaunch"})})
    script = "#!/bin/bash\n#SBATCH -p shared\nsrun ./a\n"
    assert list(explain_script.lines(script, site))[-1].endswith("recovered by relaunch")
    assert next(explain_script.lines(script.replace("shared", "main"), site)).startswith("mps=off: nothing")
    assert next(explain_script.lines(script, site, "main")).startswith("mps=off: nothing")


def test_no_requeue_closes_the_last_rung() -> None:
    said = list(explain_script.lines(f"{HEAD}#SBATCH --no-requeue\nsrun ./a\n./b\n", Options()))
    assert "line 3: --no-requeue: the last rung is closed" in said
    assert not [line for line in said if "requeue," in line or line.endswith("requeue")]
    assert any("its job is told, and not requeued" in line for line in said)


def test_the_hint_of_the_plugin_is_foretold() -> None:
    assert "begins with a hint" in list(explain_script.lines(f"{HEAD}./a\n", Options()))[-1]
    assert "begins with a hint" not in list(explain_script.lines(f"{HEAD}./a\nsrun ./b\n", Options()))[-1]
    assert "begins with a hint" not in list(explain_script.lines(f"{HEAD}./a\n", Options(batch_hint="off")))[-1]


def test_a_script_that_is_no_shells_is_itself_the_program() -> None:
    said = list(explain_script.lines("#!/usr/bin/env python3\n#SBATCH --mps\nimport x\n", Options()))
    assert "the script is itself the program" in said[-2]


@pytest.mark.parametrize(
    ("option", "why"),
    [("--mps-threads=300", "line 2: --mps-threads: bad value"), ("--mps-domain=shared", "shared is forbidden")],
)
def test_what_the_plugin_refuses_is_refused(option: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        list(explain_script.lines(f"#!/bin/bash\n#SBATCH {option}\n", Options()))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "job.sh"
    script.write_text(f"{HEAD}srun ./a\n")
    assert main(["explain", "--job-script", str(script)]) == exit_code("ok")
    assert "line 3: srun ./a: each task has a supervisor" in capsys.readouterr().out
    assert main(["explain", "--job-script", str(tmp_path / "none")]) != exit_code("ok")
    assert "cannot be read" in capsys.readouterr().err
    assert main(["explain", "--job-script", str(script), "12"]) == exit_code("usage")
