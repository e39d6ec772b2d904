"""Who may not reach a job's kept state: another user, and the same user without the token."""

import json
import time

import pytest

from resilience.state.names import STATE_VERSION
from tests.cluster.sandbox import wait_for
from tests.demo.faults import SHARD
from tests.demo.stage import NODE, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

_CONNECT = """
import socket, sys
peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
peer.settimeout(5)
peer.connect(sys.argv[1])
peer.send(sys.argv[2].encode())
print(peer.recv(4096).decode())
"""


def test_nobody_else_reaches_a_keeper(stage: Stage) -> None:
    reference = stage.reference()
    since = time.monotonic()
    job = stage.solver(*SHARD.ask())
    stage.under_way([job])
    directory = f"/run/mpsr/{NODE}/jobs/{job.number}"
    found = wait_for(lambda: list(stage.sandbox.path(directory).glob("k*")), 10)
    keeper = f"{directory}/{found[0].name}"
    python = stage.sandbox.plan.python
    attach = json.dumps({"op": "attach", "v": STATE_VERSION, "token": "guess", "role": "active"})
    other = stage.sandbox.run([python, "-c", _CONNECT, keeper, attach], user="bob")
    assert other.status != 0
    assert "PermissionError" in other.err
    same = stage.sandbox.run([python, "-c", _CONNECT, keeper, attach], user="alice")
    assert json.loads(same.out) == {"op": "refused", "reason": "wrong token", "busy": False}, same.err
    fields = stage.end(job)
    assert fields["JobState"] == "COMPLETED"
    assert stage.digest(job.stems[0]) == reference
    assert stage.clean([job.number], since) == []
