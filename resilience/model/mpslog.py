"""One message of an MPS daemon's or server's log, as a value."""

from dataclasses import dataclass
from enum import StrEnum


class LogKind(StrEnum):
    """What a line says; the values are the `kind`s of catalog/mps_log.toml."""

    CULPRIT = "culprit"
    """`pid` made the GPU fault."""
    HANDLING = "handling"
    """The server goes through its fault sequence: every client is hit."""
    STICKY_LIST = "sticky_list"
    STATUS = "status"
    CONNECTED = "connected"
    EXIT = "exit"
    REFUSED = "refused"
    DESTROYING = "destroying"
    CREATING = "creating"
    """The server makes a context, at its start or after a fault."""
    SERVER_STARTED = "server_started"
    SERVER_FAILED = "server_failed"
    NEW_CLIENT = "new_client"
    STARTING_SERVER = "starting_server"
    SERVER_READY = "server_ready"
    SERVER_EXITED = "server_exited"
    SERVER_FATAL = "server_fatal"
    DAEMON_STARTED = "daemon_started"
    DAEMON_EXITED = "daemon_exited"
    ORDINARY = "ordinary"
    """Stands in every log and says nothing to us."""
    QUIT = "quit"
    """The daemon was told to end: it takes no new clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that says something to us. Zero, -1 or empty where the message has no such part."""

    kind: LogKind
    text: str
    """The message without the bracketed head."""
    stamp: str
    """Local time as the log has it, `2026-01-31 12:00:00.123`."""
    writer: int
    """The pid in the head: the daemon or the server."""
    pid: int = 0
    context: int = -1
    device: int = -1
    uid: int = -1
    number: int = -1
    """Exit status or count of clients, as the kind says."""
    active: bool = False
    """STATUS only."""
