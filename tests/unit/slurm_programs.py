"""squeue and scontrol on the slurmctld of fake_pyslurm.py: both adapters of the Slurm port then see the same cluster."""

from dataclasses import dataclass, field

from resilience.adapters.slurm.slurm_program import ProgramAnswer
from resilience.model.errors import SlurmAway
from tests.unit.fake_pyslurm import Controller, RPCError
from tests.unit.squeue_kit import Cluster

_CHANGES = {"AdminComment": "admin_comment", "ExcNodeList": "excluded_nodes", "StartTime": "begin_time"}


@dataclass
class Programs(Cluster):
    controller: Controller = field(default_factory=Controller)

    def run(self, program: str, *words: str, timeout: float) -> ProgramAnswer:
        if not self.controller.reachable:
            raise SlurmAway("slurmctld", "cannot be asked", "Unable to contact slurm controller (connect failure)")
        try:
            if program.endswith("squeue"):
                self._look(words)
                return super().run(program, *words, timeout=timeout)
            if words[0] == "show":
                return self._show(words)
            return self._do(words)
        except RPCError as error:
            return ProgramAnswer(status=1, out=b"", err=f"slurm_{words[0]} error: {error}")

    def _show(self, words: tuple[str, ...]) -> ProgramAnswer:
        if words[1] == "config":
            return ProgramAnswer(status=0, out=self.config.encode(), err="")
        node = self.controller.nodes.get(words[2])
        if node is None:
            raise RPCError(f"Node '{words[2]}' does not exist")
        text = f"NodeName={words[2]} Arch=x86_64\n   State={node['state']} ThreadsPerCore=1\n"
        text += f"   Reason={node['reason']}\n" if node.get("reason") else ""
        return ProgramAnswer(status=0, out=text.encode(), err="")

    def _do(self, words: tuple[str, ...]) -> ProgramAnswer:
        self.asked.append(words)
        values = dict(word.partition("=")[::2] for word in words[1:])
        if "NodeName" in values:
            self.controller.nodes[values["NodeName"]] = {"state": "IDLE+DRAIN", "reason": values["Reason"]}
            return ProgramAnswer(status=0, out=b"", err="")
        job = self._number(values["JobId"] if words[0] == "update" else words[1])
        self.controller.calls.append(f"{words[0]} {values.get('JobId', words[1])}")
        if words[0] == "requeue":
            self.controller.requeue(job)
        else:
            self.controller.modify(job, {_CHANGES[name]: value for name, value in values.items() if name != "JobId"})
        return ProgramAnswer(status=0, out=b"", err="")

    def _number(self, name: str) -> int:
        for job, found in self.controller.jobs.items():
            array = f"{found['array_id']}_{found['array_task_id']}"
            if name in (array, f"{found['heterogeneous_id']}+{found['heterogeneous_offset']}"):
                return job
        if not name.isdigit() or int(name) not in self.controller.jobs:
            raise RPCError("Invalid job id specified")
        return int(name)

    def _look(self, words: tuple[str, ...]) -> None:
        (name,) = (word.partition("=")[2] for word in words if word.startswith("--jobs="))
        job = self._number(name)
        found = self.controller.look(job)
        self.jobs = {
            job: {
                "ArrayJobID": str(found["array_id"] or job),
                "ArrayTaskID": "N/A" if found["array_task_id"] is None else str(found["array_task_id"]),
                "HetJobID": str(found["heterogeneous_id"] or "N/A"),
                "HetJobOffset": "N/A" if found["heterogeneous_offset"] is None else str(found["heterogeneous_offset"]),
                "State": found["state"],
                "BatchFlag": str(int(found["is_batch_job"])),
                "Requeue": str(int(found["is_requeueable"])),
                "RestartCnt": str(found["requeue_count"]),
                "PriorityLong": str(found["priority"]),
                "Reason": found["state_reason"],
                "WorkDir": found["working_directory"],
                "StdOut": found["standard_output"],
                "admin_comment": found["admin_comment"] or "(null)",
                "ExcNodeList": found["excluded_nodes"] or "",
            }
        }
