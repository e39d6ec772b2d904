"""docs/how-to/job_submit.lua on a real slurmctld: partitions that force MPS, and such that forbid it; and what a
cli_filter.lua can do to our options."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spank.node import ROOT
from tests.spank.site import Site, site
from tests.spank.slurm import cluster, missing

pytestmark = pytest.mark.cluster
PLUGIN = "slurm-wlm/job_submit_lua.so"
CLI_FILTER = """
function slurm_cli_setup_defaults(options, early_pass) return slurm.SUCCESS end
function slurm_cli_pre_submit(options, offset)
  options["mps"] = "on"
  if options["partition"] == "closed" then
    slurm.log_error("closed today: %s", tostring(options["mps"]))
    return slurm.ERROR
  end
  return slurm.SUCCESS
end
function slurm_cli_post_submit(offset, job_id, step_id) return slurm.SUCCESS end
"""
CONF = """JobSubmitPlugins=lua
CliFilterPlugins=lua
PartitionName=shared Nodes=ALL State=UP
PartitionName=alone Nodes=ALL State=UP
"""
SHOW = "echo ${MPSR_OPTIONS-none}; srun -Q bash -c 'echo ${MPSR_ROLE-none}'"


@pytest.fixture(scope="module")
def lua(built: Path) -> Iterator[Site]:
    if lacking := missing() or ([] if list(Path("/usr/lib").glob(f"*/{PLUGIN}")) else [PLUGIN]):
        pytest.skip(f"no private cluster with job_submit/lua on this machine: {', '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="mpsr-lua-", dir="/tmp", ignore_cleanup_errors=True) as name:
        shutil.copy(ROOT / "docs/how-to/job_submit.lua", name)
        (Path(name) / "cli_filter.lua").write_text(CLI_FILTER)
        with cluster(Path(name), conf=CONF) as running, site(running, built) as it:
            it.plugin(f"prolog={running.dir}/prolog.hook", "batch_hint=off")
            yield it


@pytest.mark.parametrize(
    ("options", "first", "role"),
    [
        (("-pshared",), "mps=on;", "active"),
        (("-pshared", "--mps-threads=20"), "mps=on;domain=user;threads=20;", "active"),
        (("-palone",), "none", "none"),
        ((), "none", "none"),
        (("--mps",), "mps=on;", "active"),
    ],
)
def test_a_batch_job_runs_as_its_partition_says(lua: Site, options: tuple[str, ...], first: str, role: str) -> None:
    script, step = lua.cluster.batch(SHOW, *options)[1].splitlines()
    assert (script[: len(first)], step) == (first, role)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("sbatch", "-palone", "--mps", "--wrap=true"), "mpsr: partition alone: has no MPS"),
        (("srun", "-palone", "--mps", "true"), "mpsr: partition alone: has no MPS"),
        (("sbatch", "-pshared", "--mps=off", "--wrap=true"), "mpsr: partition shared: jobs run under MPS"),
        (("srun", "-pshared", "true"), "mpsr: partition shared: jobs run under MPS"),
    ],
)
def test_what_a_partition_does_not_have_is_refused(lua: Site, command: tuple[str, ...], why: str) -> None:
    done = lua.cluster.run(*command)
    assert done.returncode != 0
    assert why in done.stderr


def test_a_twin_counts_as_asked(lua: Site) -> None:
    done = lua.cluster.run("sbatch", "-palone", "--wrap=true", env={"MPSR_MPS": "on"})
    assert "mpsr: partition alone: has no MPS" in done.stderr


def test_a_step_that_asks_may_use_it(lua: Site) -> None:
    done = lua.cluster.run("srun", "-Q", "-pshared", "--mps", "bash", "-c", "echo $MPSR_ROLE")
    assert done.stdout == "active\n"


@pytest.mark.parametrize("command", [("sbatch", "--wrap=true"), ("srun", "true"), ("salloc", "true")])
def test_a_cli_filter_refuses_and_knows_nothing_of_plugins(lua: Site, command: tuple[str, ...]) -> None:
    done = lua.cluster.run(command[0], "-pclosed", "--mps", *command[1:])
    assert done.returncode != 0
    assert "closed today: nil" in done.stderr
