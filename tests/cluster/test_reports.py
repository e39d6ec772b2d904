"""What people report of Slurm and MPS, on real Slurm: outputs that are no files, deep directories, arrays."""

from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox
from tests.demo.stage import Stage

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Sandbox(nodes=2) as sandbox:
        yield Stage(sandbox)


def test_flags_that_an_include_takes_from_the_site_are_told(stage: Stage) -> None:
    conf = stage.sandbox.path("/etc/slurm/slurm.conf")
    before, include = conf.read_text(), "include /etc/slurm/slurm-mpsr.conf"

    def check() -> list[str]:
        out = stage.sandbox.run(["/opt/bin/mpsr", "check"], node="n0").out.splitlines()
        return [line for line in out if "PrologFlags" in line or "GresTypes" in line]

    assert all(line.startswith("ok") for line in check()), check()
    conf.write_text(before.replace(include, f"PrologFlags=Contain\n{include}"))
    assert any(line.startswith("error") and "slurm.conf: PrologFlags" in line for line in check())
    conf.write_text(before.replace(include, f"{include}\nPrologFlags=Alloc,NoHold"))  # not taken over yet
    assert [line for line in check() if line.startswith("error")] == [
        "error   slurmctld: PrologFlags: has not what slurm.conf names: NoHold; it has Alloc"
    ]
    conf.write_text(before)


def log(stage: Stage, name: str, *, user: str = "alice") -> tuple[str, str]:
    done = stage.sandbox.run(["/opt/bin/mpsr", "log", "-j", name], user=user)
    assert done.status == 0, done
    return done.out, done.err


def test_a_recovery_log_lies_in_the_working_directory_where_the_output_is_no_file(stage: Stage) -> None:
    job = stage.solver("--gres=shard:2", "--output=/dev/null", plain=True)
    stage.under_way([job])
    stage.end(stage.culprit("illegal-address", "--gres=shard:2"))
    assert "relaunched" in stage.end(job)["AdminComment"]
    assert stage.sandbox.path(f"/home/alice/mpsr-{job.number}.log").exists()
    assert not stage.sandbox.path(f"/dev/mpsr-{job.number}.log").exists()
    out, err = log(stage, str(job.number))
    assert "relaunched" in out
    assert err == ""
    stage.sandbox.path(f"/home/alice/mpsr-{job.number}.log").unlink()
    out, err = log(stage, str(job.number))  # nothing is left of the log, and yet it is not denied
    assert out == ""
    assert "its AdminComment says: " in err
    assert "relaunched" in err


def test_a_task_runs_in_a_directory_as_deep_as_the_kernel_takes_it(stage: Stage) -> None:
    deep = "; ".join(["cd", *["mkdir -p $d && cd $d"] * 36])
    script = (
        f'd=$(printf "a%.0s" $(seq 110)); {deep}; pwd | wc -c; srun --mps sh -c \'pwd | wc -c; echo "$MPSR_SPILL"\''
    )
    job = stage.sandbox.sbatch("--mps", "-wn0", "--gres=shard:1", script=script)
    assert stage.sandbox.wait(job)["JobState"] == "COMPLETED", stage.sandbox.output(job)
    bytes_of_script, bytes_of_task, spill = stage.sandbox.output(job).split()
    assert int(bytes_of_script) == int(bytes_of_task) > 4000
    assert spill.endswith(f"/.mpsr-{job}")


def test_a_task_of_an_array_is_found_by_its_name(stage: Stage) -> None:
    first = stage.sandbox.sbatch("--array=3,7", "--mps", "-wn0", "--gres=shard:1", script="srun true")
    stage.sandbox.wait(first)
    records = [stage.sandbox.job(first), stage.sandbox.job(first + 1)]
    for record in records:
        number = int(stage.sandbox.wait(int(record["JobId"]))["JobId"])
        named = f"{record['ArrayJobId']}_{record['ArrayTaskId']}"
        told = stage.sandbox.good(["/opt/bin/mpsr", "log", "--node", "n0", "-j", named])
        assert f"job={number} " in told
        assert told == stage.sandbox.good(["/opt/bin/mpsr", "log", "--node", "n0", "-j", str(number)])
    missing = stage.sandbox.run(["/opt/bin/mpsr", "explain", "--node", "n0", f"{first}_4"])
    assert missing.status == 2
    assert "give the job's own number" in missing.err


def test_a_component_of_a_heterogeneous_job_is_found_by_its_name(stage: Stage) -> None:
    one, two = (["--mps", "--gres=shard:1", f"-w{node}"] for node in ("n0", "n1"))
    job = stage.sandbox.sbatch(*one, ":", *two, script="srun --het-group=0,1 true")
    stage.sandbox.wait(job)
    told = stage.sandbox.good(["/opt/bin/mpsr", "log", "--node", "n1", "-j", f"{job}+1"])
    assert f"job={job + 1} " in told
    assert f"job={job} " not in told
