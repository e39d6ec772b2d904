"""What tasks say of themselves in the journal: so much a minute of one user.

Anybody with a job can have supervisors come and go, or a keeper say the same again and again, and must push neither the disk
to its end nor others' records out of the journal. What was done about faults is always written.
"""

from collections import OrderedDict

from resilience.agent.budget import Budget, Taken
from resilience.model.ids import JobId
from resilience.model.incident import Action
from resilience.model.observation import Source
from resilience.model.records import Record, Sighting, TaskExit, TaskGone, TaskHello, Verdict
from resilience.ports import Clock

RECORDS = 1500
"""Of one user in a minute. A step of 256 tasks writes 768."""
_JOBS = 4096


class Chatter:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._budget = Budget(RECORDS)
        self._users: OrderedDict[JobId, int] = OrderedDict()

    def learn(self, job: JobId, uid: int) -> None:
        """Whose job it is."""
        self._users[job] = uid
        self._users.move_to_end(job)
        if len(self._users) > _JOBS:
            self._users.popitem(last=False)

    def written(self, record: Record) -> tuple[Record, ...]:
        """The record, unless its user has said enough; the last one is followed by a word about that."""
        match record:
            case TaskHello(task=task) | TaskExit(task=task) | TaskGone(task=task) if task is not None:
                job = task.job
            case Verdict(action=Action.NONE, task=task) if task is not None:
                job = task.job
            case Sighting(source=Source.CLIENT):
                named = record.task or (record.who.task if record.who is not None else None)
                if named is None:
                    return (record,)
                job = named.job
            case _:
                return (record,)
        uid = self._users.get(job)
        taken = self._budget.take(uid, self._clock.monotonic())
        if taken is Taken.NO:
            return ()
        if taken is Taken.LAST:
            text = f"uid {uid}: more than {RECORDS} records of tasks in a minute: the rest of them is not written down"
            return record, Sighting(source=Source.CLIENT, what="journal", text=text)
        return (record,)
