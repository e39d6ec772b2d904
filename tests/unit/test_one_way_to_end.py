"""A process that may have work on a GPU is ended in one way only: its MPS clients first, then the signal.

Every place that sends a signal is named here with the reason why its target is no such process, or has been taken care of.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
C = {
    "spank_plugin/client/client.c": "a process dies of the signal that it got, when its clients have been ended",
    "spank_plugin/launcher/ending.c": "the one way; the keeper, which it kills at once, holds descriptors and is no client",
    "spank_plugin/launcher/family.c": "what ending.c calls",
    "spank_plugin/launcher/signals.c": "the supervisor dies of its child's signal",
    "spank_plugin/plugin/late.c": "the site's hook: it opens servers, and is no client",
    "spank_plugin/enter/enter.c": "NVIDIA's programs in an enclosure",
}
PYTHON = {
    "resilience/adapters/linux/processes.py": "what client_end.py calls",
    "resilience/adapters/linux/as_user.py": "a child of ours that looks into directories",
    "resilience/adapters/linux/cgroups.py": "MPS daemons, and what users' daemons have started in an enclosure",
    "resilience/adapters/linux/commands.py": "a command line program",
    "resilience/adapters/linux/hook_server.py": "the work of a prolog or epilog",
    "resilience/adapters/linux/kept_process.py": "a child that talks to Slurm",
    "resilience/adapters/linux/remote.py": "ssh or srun, which ask another node",
    "resilience/adapters/linux/reapers.py": "the programs that root starts in an enclosure",
    "resilience/adapters/slurm/pyslurm_process.py": "the same child",
    "resilience/state/alone.py": "without Slurm no server is ours: the user's own signals are passed on; a keeper is no client",
}
SENDS = re.compile(r"\b(os\.kill|killpg|pidfd_send_signal|kill|tgkill|sigqueue|raise)\s*\(")
PYTHON_SENDS = re.compile(r"os\.kill\(|killpg\(|pidfd_send_signal\(|\.send_signal\(|\.kill\(\)|\.terminate\(\)")


def senders(where: str, suffix: str, pattern: re.Pattern[str]) -> set[str]:
    """Files below a directory whose code, without its comments, has the pattern."""
    comment = re.compile(r"#[^\n]*") if suffix == ".py" else re.compile(r"/\*.*?\*/", re.DOTALL)
    files = (ROOT / where).rglob(f"*{suffix}")
    return {
        str(path.relative_to(ROOT))
        for path in files
        if pattern.search(comment.sub("", path.read_text(encoding="utf-8")))
    }


def test_no_other_place_in_c_sends_a_signal() -> None:
    assert senders("spank_plugin", ".c", SENDS) == set(C)


def test_no_other_place_in_python_sends_a_signal() -> None:
    assert senders("resilience", ".py", PYTHON_SENDS) == set(PYTHON)


def test_families_are_killed_by_ending_c_alone() -> None:
    callers = senders("spank_plugin", ".c", re.compile(r"family_kill\("))
    assert callers == {"spank_plugin/launcher/ending.c", "spank_plugin/launcher/family.c"}


def test_processes_are_ended_through_their_clients() -> None:
    """mps_control.py ends the daemons themselves, and gpusim's are not ours."""
    users = senders("resilience", ".py", re.compile(r"processes\.(?:kill|end)\(|processes import .*\b(?:kill|end)\b"))
    assert users == {"resilience/adapters/mps/client_end.py", "resilience/adapters/mps/mps_control.py"}
