"""The journal's records: one frozen value per event, and what is made of them (told.py, journal.py)."""

from resilience.model.records.base import Record, server_id, task_id
from resilience.model.records.incidents import (
    IncidentAttributed,
    IncidentClassified,
    IncidentClosed,
    IncidentOpened,
    JobAccounted,
    Recovered,
    RecoveryFailed,
    Sighting,
    Verdict,
)
from resilience.model.records.node import (
    AgentStarted,
    AgentStopped,
    DomainClosed,
    DomainOpened,
    JobClosed,
    JobOpened,
    JobRefused,
    ServerRebuilt,
    ServerReplaced,
    ServerUnavailable,
    UserThrottled,
)
from resilience.model.records.slurm import BreakerOpen, SlurmIntent, SlurmOutcome
from resilience.model.records.tasks import ClientEnded, TaskExit, TaskGone, TaskHello, TaskStopped

__all__ = [
    "AgentStarted",
    "AgentStopped",
    "BreakerOpen",
    "ClientEnded",
    "DomainClosed",
    "DomainOpened",
    "IncidentAttributed",
    "IncidentClassified",
    "IncidentClosed",
    "IncidentOpened",
    "JobAccounted",
    "JobClosed",
    "JobOpened",
    "JobRefused",
    "Record",
    "Recovered",
    "RecoveryFailed",
    "ServerRebuilt",
    "ServerReplaced",
    "ServerUnavailable",
    "Sighting",
    "SlurmIntent",
    "SlurmOutcome",
    "TaskExit",
    "TaskGone",
    "TaskHello",
    "TaskStopped",
    "UserThrottled",
    "Verdict",
    "server_id",
    "task_id",
]
