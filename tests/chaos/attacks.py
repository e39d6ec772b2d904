"""Attacks on a node by a user with a job there: each a batch script's text that goes on until its job is ended."""

import shlex
from collections.abc import Callable

from tests.cluster.plan import REPO, USERS, Plan
from tests.demo import programs
from tests.demo.stage import NODE

ASKS = ("--mps", "--gres=shard:1", f"-w{NODE}")
RUN, LOG = f"/run/mpsr/{NODE}", f"/var/log/mpsr/{NODE}"
DAEMONS = "pgrep -u $(id -u) -f nvidia-cuda-mps-control"


def _writes(how: str) -> Callable[[Plan, str], str]:
    return lambda plan, user: _attacker(plan, how, f"{LOG}/d/u{USERS[user]}/g0/a")


def _talks(how: str, common: bool = False) -> Callable[[Plan, str], str]:
    """At the user's own socket, or at the one that is there for all."""
    return lambda plan, user: _attacker(
        plan, how, f"{RUN}/agent.sock" if common else f"{RUN}/agents/{USERS[user]}.sock"
    )


def _attacker(plan: Plan, how: str, place: str) -> str:
    program = f"{REPO}/tests/chaos/attacker.py"
    return f"sleep infinity | {plan.python} -P {program} {how} {place} $SLURM_JOB_ID"


def _stops_daemons(plan: Plan, user: str) -> str:
    """The agent asks daemons that do not answer."""
    return f"kill -STOP $({DAEMONS})\n{_talks('hellos')(plan, user)}"


def _kills_daemons(plan: Plan, user: str) -> str:
    """With a task there, so that the agent starts others."""
    return f"srun sleep infinity &\nwhile :; do kill -9 $({DAEMONS}); sleep 0.05; done 2>/dev/null"


def _faults(plan: Plan, user: str) -> str:
    """Fault after fault on the own servers, beside a task that is recovered each time."""
    culprit = shlex.join(programs.culprit(plan, "illegal-address"))
    return f"srun --overlap -n1 --mps-retries=100 sleep infinity &\nwhile :; do srun --overlap -n1 {culprit}; done"


def _fills(plan: Plan, user: str) -> str:
    places = (f"{RUN}/jobs/$SLURM_JOB_ID", f"{RUN}/d/u{USERS[user]}/g0/a", f"{LOG}/d/u{USERS[user]}/g0/a")
    return "\n".join(f"{_attacker(plan, 'places', place)} &" for place in places) + "\nwait"


def _comes_and_goes(plan: Plan, user: str) -> str:
    """Prologs and epilogs, one after the other."""
    alone = "env -i HOME=$HOME USER=$USER PATH=$PATH"  # else it would be a step of this job
    return f"while :; do {alone} srun -Q {shlex.join(ASKS)} --mps-domain=job true; done"


def _computes(plan: Plan, user: str) -> str:
    """No attack: what any job costs others that computes on the same cores."""
    return "while :; do :; done"


ATTACKS: dict[str, Callable[[Plan, str], str]] = {
    "no attack, a busy loop": _computes,
    "newlines in the own logs": _writes("newlines"),
    "lines of clients in the own logs": _writes("clients"),
    "known lines in the own logs": _writes("known"),
    "torn lines in the own logs": _writes("torn"),
    "words without end": _talks("words"),
    "descriptors without end": _talks("rights"),
    "tasks that come and go": _talks("hellos"),
    "connections at the own socket": _talks("knocks"),
    "connections at the common socket": _talks("knocks", common=True),
    "daemons stopped and asked": _stops_daemons,
    "daemons killed": _kills_daemons,
    "fault after fault": _faults,
    "directories filled": _fills,
    "jobs that come and go": _comes_and_goes,
}
"""By what the user does."""
