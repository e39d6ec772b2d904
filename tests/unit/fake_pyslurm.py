"""A stand-in for the module pyslurm: the calls that our adapter makes, with the answers of its 25.11 documentation.

What is real here: names, arguments and result types follow https://pyslurm.github.io/25.11/reference/ and the source of
PySlurm; the behaviour behind them (a requeued job is COMPLETING for a while, a start time given then is forgotten, an
exclusion of the last node is taken and leaves the job pending, an update while RUNNING is refused) is what
tests/cluster/test_slurm_port.py sees on a real Slurm 22.05; that an empty list of nodes is not sent, and that the number of
an array's or of a heterogeneous job's first job loads any of them, was seen on 25.11 and in pyslurm's source. pyslurm itself is
asked the same by tests/cluster/test_slurm_port.py, on a Slurm for which it can be built (make releases RELEASES=sid).

As a module (PYTHONPATH with a file pyslurm.py that takes its names from here) it is what pyslurm_calls.py imports.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class RPCError(Exception):
    """pyslurm/core/error.pyx: str() is Slurm's message."""

    def __init__(self, msg: str) -> None:
        self.msg = msg
        super().__init__(msg)


class JobSubmitDescription:
    """pyslurm/core/job/submission.pxd: any valid attribute as a keyword."""

    ATTRIBUTES = frozenset({"admin_comment", "excluded_nodes", "begin_time", "priority", "comment"})

    def __init__(self, **changes: Any) -> None:
        if unknown := set(changes) - self.ATTRIBUTES:
            raise AttributeError(unknown)
        self.changes = changes


@dataclass
class Controller:
    """What slurmctld knows, and how many looks a job stays COMPLETING."""

    jobs: dict[int, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    all_nodes: tuple[str, ...] = ("n0", "n1")
    completing: int = 2
    reachable: bool = True
    calls: list[str] = field(default_factory=list)

    def add(self, job: int, **values: Any) -> None:
        self.jobs[job] = {
            "state": "RUNNING",
            "state_reason": "None",
            "is_batch_job": True,
            "is_requeueable": True,
            "requeue_count": 0,
            "standard_output": "/home/alice/out",
            "working_directory": "/home/alice",
            "excluded_nodes": None,
            "priority": 100,
            "array_id": None,
            "array_task_id": None,
            "heterogeneous_id": None,
            "heterogeneous_offset": None,
            "admin_comment": None,
            "left": 0,
            "start_now": False,
            **values,
        }

    def find(self, job: int) -> dict[str, Any]:
        if not self.reachable:
            raise RPCError("Unable to contact slurm controller (connect failure)")
        if job not in self.jobs:
            raise RPCError("Invalid job id specified")
        return self.jobs[job]

    def look(self, job: int) -> dict[str, Any]:
        """One look at a job moves its life on."""
        found = self.find(job)
        if found["state"] == "COMPLETING":
            found["left"] -= 1
            if found["left"] <= 0:
                found.update(state="PENDING", start_now=False)
        elif found["state"] == "PENDING" and found["start_now"]:
            taken = set((found["excluded_nodes"] or "").split(","))
            if set(self.all_nodes) <= taken:
                found.update(state_reason="BadConstraints", priority=0)
            else:
                found.update(state="RUNNING", state_reason="None", start_now=False)
        return found

    def requeue(self, job: int) -> None:
        found = self.find(job)
        if not found["is_requeueable"]:
            raise RPCError("Requested operation is presently disabled")
        if found["state"] == "PENDING":
            raise RPCError("Job is pending execution")
        found.update(state="COMPLETING", left=self.completing, requeue_count=found["requeue_count"] + 1)

    def modify(self, job: int, changes: dict[str, Any]) -> None:
        found = self.find(job)
        if "excluded_nodes" in changes:
            if found["state"] == "RUNNING":
                raise RPCError("Job is no longer pending execution")
            found["excluded_nodes"] = changes["excluded_nodes"]
            if found["state_reason"] == "BadConstraints":
                found.update(state_reason="None", priority=100)
        if "admin_comment" in changes:
            found["admin_comment"] = changes["admin_comment"]
        if changes.get("begin_time") == "now" and found["state"] == "PENDING":
            found["start_now"] = True


def module(controller: Controller) -> Any:
    """An object that looks like the module, wired to a controller."""

    class Job:
        def __init__(self, job_id: int) -> None:
            self.id = job_id

        @staticmethod
        def load(job_id: int) -> "Job":
            found = Job(job_id)
            for name, value in controller.look(job_id).items():
                setattr(found, name, value)
            if job_id in (found.array_id, found.heterogeneous_id):  # type: ignore[attr-defined]
                found.id += 1  # the first that slurmctld has, whichever that is
            return found

        def requeue(self, hold: bool = False) -> None:
            controller.calls.append(f"requeue {self.id}")
            controller.requeue(self.id)

        def modify(self, changes: JobSubmitDescription) -> None:
            sent = {name: value for name, value in changes.changes.items() if value}
            controller.calls.append(f"modify {self.id} {' '.join(sent)}")
            controller.modify(self.id, sent)

    class Node:
        def __init__(self, name: str = "", **values: Any) -> None:
            self.name = name
            self.state, self.reason = values.get("state", "IDLE"), values.get("reason")

        @staticmethod
        def load(name: str) -> "Node":
            if name not in controller.nodes:
                raise RPCError(f"Node '{name}' does not exist")
            return Node(name, **controller.nodes[name])

        def modify(self, changes: "Node") -> None:
            controller.nodes[self.name] = {"state": f"IDLE+{changes.state}", "reason": changes.reason}

    class Config:
        version = "25.11.4"

        @staticmethod
        def load() -> "Config":
            if not controller.reachable:
                raise RPCError("Unable to contact slurm controller (connect failure)")
            return Config()

    class Module:
        __version__ = "25.11.2"
        slurmctld = SimpleNamespace(Config=Config)

    api: Any = Module()
    api.Job, api.Node, api.RPCError, api.JobSubmitDescription = Job, Node, RPCError, JobSubmitDescription
    return api
