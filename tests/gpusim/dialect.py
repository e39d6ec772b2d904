"""What differs between the control daemons of the 535, 550, 580, 595, 610 and 615 drivers, as data.

Job: one `Dialect` per driver branch: its wording, its features, its traps. The processes ask the dialect and never
the version.

Source: the recordings of the real daemons (transcripts/, made by record.py) for everything that happens without a
GPU. The messages of a server that runs and of a fault stand as printable strings in the drivers' libcuda.so.1
(535.261.03, 550.163.01, 580.159.03, 595.99.02); their wording is exact, their order is our reading of NVIDIA's MPS
document ("error containment"). Nothing of 610 and 615 is recorded: they are 595, 615 with the protocol 3 of NVIDIA's document
(mps_v3.py). That static partitions isolate from 610 on is the profile's `partition_isolates`, not a matter of words.
"""

from __future__ import annotations

_SETTINGS = (
    "Insufficient privileges for UID %%(uid)d. "
    "Control deamon settings can only be modified by the %s or by the root user."
)

_OLD = {
    "new": "Received new client request",
    "worker": "Creating worker thread",
    "culprit": "Client process %(pid)d encountered a fatal GPU error.",
    "handling": "Server is handling a fatal GPU error.",
    "active": "Status of client {%(pid)d, %(context)d} is ACTIVE",
    "inactive": "Status of client {%(pid)d, %(context)d} is INACTIVE",
    "sticky": "The following clients have a sticky error set:",
    "sticky_client": "%(pid)d",
    "torn": "",
    "refused": "Teardown in progress, client creation denied",
    "exit": "Client {%(pid)d, %(context)d} exit",
    "left": "Client disconnected. Number of active client contexts is %(count)d.",
    "terminating": "",
    "terminate_unknown": "Failed to terminate client {%(pid)d, 0}.",
    "terminated": "Client termination succeeded.",
    "full": "Failed to accept new client. Maximum number of clients (%(limit)d) reached.",
    "destroy": "Destroy server context on device %(device)d",
    "create": "Creating server context on device %(device)d (%(name)s)",
    "percentage": "Active Threads Percentage set to %(value).1f",
    "pinned": "Device pinned memory limit for device %(device)d set to 0x%(bytes)x bytes",
    "start_failed": "Failed to start server using uid %(uid)d. Operation not permitted",
    "insufficient": "Insufficient privileges for UID %(uid)d. Only the root user may start server for another user.",
    "settings": _SETTINGS % "user started it",
    "need_uid": "A user id (UID) is required to start a new server",
    "bad_device": "Invalid device ordinal!",
}

_OLDEST = _OLD | {"insufficient": "Insufficient privileges for UID %(uid)d"}

_NEW = _OLD | {
    "new": "Received new client request for {PID: %(pid)d, Context ID: %(context)d}",
    "worker": "Creating worker thread for client {PID: %(pid)d, Context ID: %(context)d}",
    "culprit": "Client {PID: %(pid)d, Context: %(context)d} encountered a fatal GPU error.",
    "active": "Status of client {PID: %(pid)d, Context ID: %(context)d} is ACTIVE",
    "inactive": "",
    "sticky": "The following client process have a sticky error set:",
    "torn": "MPS Client {PID: %(pid)d, Context ID: %(context)d} on device %(device)d to be torn down",
    "refused": "MPS server teardown in progress. Refusing to accept new client {PID: %(pid)d, Context ID: %(context)d}",
    "exit": "",
    "left": "Client {PID: %(pid)d, Context ID: %(context)d} exiting. Number of active client contexts is %(count)d.",
    "terminating": "MPS server requesting client {PID: %(pid)d, Context ID: %(context)d} to exit",
    "terminate_unknown": "Client termination request failed: "
    "There is no active client context found for process %(pid)d.",
    "destroy": "Destroy server context on device %(device)d (%(name)s)",
    "start_failed": "Failed to start server using uid %(uid)d, error: Operation not permitted",
    "settings": _SETTINGS % "user who started it",
    "insufficient": _SETTINGS % "user who started it",
    "bad_device": "Invalid device identifier format: %(device)s",
}

_NEWEST = _NEW | {
    "handling": "Server has begun teardown sequence to handle a fatal GPU error.",
    "need_uid": "Invalid start_server cmd. Expected cmd: start_server -uid <user id> [-mlopart]",
}


class Dialect:
    """One driver branch. `text` is the wording; the rest are features that a caller asks for by name.

    `client_limit` is NVIDIA's documented number of client contexts per server; `line_bytes` the length of a command
    line from which the daemon dies (0: it survives); `silent_without_gpu` the exit status of `-d` where no GPU is
    found (0: it starts).
    """

    __slots__ = ("busy_ways", "client_limit", "commands", "cuda", "lazy", "line_bytes", "name", "partitions", "pid_file",
                 "protocol_3", "role", "silent_without_driver", "silent_without_gpu", "text", "version")  # fmt: skip

    def __init__(self, name: str, version: str, cuda: int, text: dict[str, str]) -> None:
        modern = int(name) >= 580
        self.name = name
        self.version = version
        self.cuda = cuda
        self.text = text
        self.partitions = int(name) >= 595
        self.protocol_3 = int(name) >= 615
        self.role = "Server" if self.partitions else "Other"
        self.pid_file = int(name) >= 550
        self.busy_ways = 4 if name == "535" else 3
        self.lazy = modern
        self.silent_without_gpu = 100 if modern else 0
        self.silent_without_driver = 244 if modern else 0
        self.line_bytes = 4090 if modern else 0
        self.client_limit = 60 if self.partitions else 48
        missing = {"get_server_status"} if name == "535" else set()
        self.commands = frozenset(COMMANDS) - missing - (set() if modern else {"device_query"})
        if not self.partitions:
            self.commands -= {"sm_partition", "lspart"}

    def say(self, key: str, **values: object) -> str:
        """The wording of `key`; empty where this branch says nothing."""
        return self.text[key] % values


COMMANDS = (
    "get_server_list start_server shutdown_server get_client_list get_device_client_list get_server_status ps "
    "get_default_active_thread_percentage set_default_active_thread_percentage get_active_thread_percentage "
    "set_active_thread_percentage get_default_device_pinned_mem_limit set_default_device_pinned_mem_limit "
    "get_device_pinned_mem_limit set_device_pinned_mem_limit get_default_client_priority set_default_client_priority "
    "terminate_client device_query sm_partition lspart quit"
).split()
"""Every command of the v2 interface; a dialect leaves some out."""

DIALECTS = {
    "535": Dialect("535", "535.261.03", 12020, _OLDEST),
    "550": Dialect("550", "550.163.01", 12040, _OLD),
    "580": Dialect("580", "580.159.03", 13000, _NEW),
    "595": Dialect("595", "595.99.02", 13020, _NEWEST),
    "610": Dialect("610", "610.43.02", 13030, _NEWEST),
    "615": Dialect("615", "615.71.09", 13040, _NEWEST),
}
DEFAULT = "580"
