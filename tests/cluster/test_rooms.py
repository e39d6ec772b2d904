"""A user fills every directory that a node gives him: a neighbour does not notice, and the epilog has it all away."""

import pytest

from tests.cluster.sandbox import Sandbox, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

FILLS = """
import os, sys
for directory in sys.argv[1:]:
    made = 0
    try:
        with open(f"{directory}/bytes", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
    except OSError:
        os.truncate(f"{directory}/bytes", 1 << 20)
    try:
        while made < 1_000_000:
            os.mknod(f"{directory}/{made}")
            made += 1
    except OSError as error:
        print(error.strerror, made < 100_000, flush=True)
"""
ASKS = ("-wn0", "--mps", "--gres=shard:1")


@pytest.mark.timeout(400)  # he makes 200,000 files
def test_a_user_who_fills_his_directories_fills_nobody_elses(cluster: Sandbox) -> None:
    cluster.path("/home/bob/fills.py").write_text(FILLS)
    places = "/run/mpsr/n0/jobs/$SLURM_JOB_ID /run/mpsr/n0/d/u3000064102/g0/a /var/log/mpsr/n0/d/u3000064102/g0/a"
    script = f"python3 -IS fills.py {places}; touch full; until [ -e go ]; do sleep 0.05; done"
    job = cluster.sbatch(*ASKS, script=script, user="bob")
    wait_for(lambda: cluster.path("/home/bob/full").exists(), 240, lambda: cluster.output(job, "bob"))
    said = [line for line in cluster.output(job, "bob").splitlines() if "mpsr: batch script" not in line]
    assert said == ["No space left on device True"] * 3
    for place in ("/run", "/var/log"):
        assert int(cluster.good(["df", "--output=ipcent", place]).split()[1].rstrip("%-") or 0) < 50
    done = cluster.run(["srun", "--quiet", *ASKS, "true"], user="alice", timeout=60)
    assert (done.status, done.err) == (0, "")
    cluster.path("/home/bob/go").touch()
    assert cluster.wait(job)["JobState"] == "COMPLETED"
    closed = wait_for(
        lambda: [one for one in cluster.journal() if one["event"] == "job.closed" and one["job"] == job], 30
    )
    assert (closed[0]["residue"], closed[0].get("later", [])) == ([], [])
    wait_for(lambda: cluster.residue() == [], 30, lambda: str(cluster.residue()))
    logs = cluster.path("/var/log/mpsr/n0/d/u3000064102")
    kept = {str(file.relative_to(logs)): file.stat().st_uid for file in logs.rglob("*.log")}
    assert kept.keys() >= {"g0/a/control.log", "g0/a/server.log"}
    assert set(kept.values()) == {0}
    assert not list(logs.rglob("bytes"))
    assert "mpsr/n0" not in cluster.good(["cat", "/proc/1/mounts"])
    assert not list(cluster.path("/run/mpsr/n0/gone").iterdir())
