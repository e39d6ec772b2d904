"""A real slurmrestd in the sandbox, as the user who asks: what a portal does to submit a batch job.

It runs once for each request (inetd mode), on pipes of the user's own, by which it knows who asks: none is left running.
"""

import json
import shutil
from collections.abc import Mapping
from typing import Any

from tests.cluster.sandbox import Sandbox, SandboxError

PROGRAM = "/usr/sbin/slurmrestd"
ENVIRONMENT = {"PATH": "/opt/bin:/usr/bin:/bin", "HOME": "/home/alice", "USER": "alice"}


def missing() -> str:
    """What this machine lacks for it."""
    return "" if shutil.which(PROGRAM) else "slurmrestd"


def ask(cluster: Sandbox, path: str, body: object = None) -> dict[str, Any]:
    """The JSON that slurmrestd answers. 22.05 and later call the part that needs no slurmdbd otherwise."""
    data = "" if body is None else json.dumps(body)
    head = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        "Host: x",
        "Accept: application/json",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        "Connection: Close",
    ]
    part = "openapi/v0.0.38" if cluster.plan.slurm < (23, 11) else "openapi/slurmctld"
    command = f"cat | {PROGRAM} -s {part} -a rest_auth/local | cat"
    done = cluster.run(["bash", "-c", command], user="alice", stdin="\r\n".join([*head, "", data]))
    try:
        answer: dict[str, Any] = json.JSONDecoder().raw_decode(done.out.partition("\n\n")[2])[0]
    except ValueError:
        raise SandboxError(f"slurmrestd: {path}: {done}") from None
    return answer


def submit(
    cluster: Sandbox, script: str, *, environ: Mapping[str, str] = {}, **more: object
) -> int:  # fmt: skip
    """Submit a batch script of alice's; `more` are fields of the job. Returns the job's number."""
    paths = ask(cluster, "/openapi/v3" if cluster.plan.slurm >= (23, 11) else "/openapi")["paths"]
    path = max(path for path in paths if path.startswith("/slurm/") and path.endswith("/job/submit"))
    environment = ENVIRONMENT | dict(environ)
    old = "v0.0.38" in path
    job = {
        "name": "rest",
        "environment": environment if old else [f"{key}={value}" for key, value in environment.items()],
        "current_working_directory": "/home/alice",
        **({"gres": "shard:1"} if old else {"tres_per_node": "gres/shard:1"}),
        **more,
    }
    answer = ask(cluster, path, {"script": script, "job": job})
    job_id = answer.get("job_id") or (answer.get("result") or {}).get("job_id")
    if not job_id:
        raise SandboxError(f"slurmrestd: {answer}")
    return int(job_id)
