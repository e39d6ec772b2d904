"""What a user calls a job on the command line: 4711, a task of an array 4711_3 or 4711_[1-3,7], a component 4711+1. Pure.

That is how squeue and sacct show them. Slurm's own number of a task or component is another one, which only Slurm knows;
everything that mpsr writes down names jobs by their own numbers.
"""

import re
from dataclasses import dataclass

from resilience.model.errors import ConfigError
from resilience.model.ids import JobId
from resilience.parse.hostlist import expand

_NAME = re.compile(
    r"(?P<job>[1-9]\d{0,9})(?:_(?P<task>\d{1,9})|_\[(?P<tasks>[\d,-]+)(?:%\d+)?\]|\+(?P<component>\d{1,3}))?\Z",
    re.ASCII,
)
_HINT = "such as 4711, 4711_3 or 4711_[1-3] (tasks of an array), 4711+1 (a component of a heterogeneous job)"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobName:
    text: str
    job: JobId
    """The job's own number, or the number of the whole array or heterogeneous job."""
    tasks: frozenset[str] = frozenset()
    """Indices of the array that are meant."""
    component: str = ""
    """Offset in the heterogeneous job."""

    @property
    def plain(self) -> bool:
        """The number is the job's own."""
        return not self.tasks and not self.component

    def means(self, task: str, component: str) -> bool:
        """Whether this is the task with that index, or the component with that offset."""
        return task in self.tasks if self.tasks else bool(component) and component == self.component


def parse(text: str) -> JobName:
    """Raises ConfigError for what is no name of a job."""
    found = _NAME.match(text)
    if not found:
        raise ConfigError("job", "is not a job's number", repr(text[:80]), hint=_HINT)
    tasks = [str(int(found["task"]))] if found["task"] else []
    if found["tasks"]:
        tasks = [str(int(task)) for task in expand(f"[{found['tasks']}]", f"job {text[:80]}")]
    return JobName(
        text=text,
        job=JobId(int(found["job"])),
        tasks=frozenset(tasks),
        component=str(int(found["component"])) if found["component"] else "",
    )
