"""The guard module's device: its records, the words it takes, and the safe end of a client that it isolated.

/dev/mps_guard exists while mps_guard.ko is loaded; root alone may open it, and an open reader keeps the module loaded.
Whether the module isolates anything is the business of its parameters, which everybody may read. The order in which a
client ends (docs/explanation/isolation.md): first the MPS server takes its work off the GPU (terminate_client), then its
process gets SIGKILL; the module keeps the address space for as long as work may still run in it.
"""

import errno
import os
import re
import signal

from resilience.adapters.linux.processes import starttime
from resilience.model.errors import ResilienceError
from resilience.model.guard import Found, Level
from resilience.model.ids import GpuUuid, Process, ServerId
from resilience.parse.guard import SIZE, Record, parse_records
from resilience.ports import Mps

DEVICE = "/dev/mps_guard"
PARAMETERS = "/sys/module/mps_guard/parameters"
DRIVER_VERSION = "/sys/module/nvidia_uvm/version"
_RING = 256
"""Records that the module keeps: one read takes them all."""
_UUID = re.compile(r"GPU-([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})\Z")


def level(device: str = DEVICE, parameters: str = PARAMETERS) -> Level:
    """What the module does now. Anything that cannot be read counts as off: isolation is never claimed on a guess."""
    if not os.path.exists(device):
        return Level.ABSENT
    if _switch(parameters, "observe"):
        return Level.OBSERVE
    if not _switch(parameters, "enabled"):
        return Level.OFF
    return Level.ON if _number(parameters, "gpus") else Level.BLIND


def clients(parameters: str = PARAMETERS) -> int:
    """How many clients it holds, or has isolated and not let go; 0 when that cannot be read."""
    return _number(parameters, "clients")


def _switch(parameters: str, name: str) -> bool:
    return _read(parameters, name) == "Y"


def _number(parameters: str, name: str) -> int:
    text = _read(parameters, name)
    return int(text) if text.isdecimal() else 0


def _read(parameters: str, name: str) -> str:
    return _line(f"{parameters}/{name}")


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(80).strip()
    except OSError:
        return ""


def found(parameters: str = PARAMETERS, driver: str = DRIVER_VERSION) -> Found:
    """Zeros and nothing where the module is not loaded, or is of a release that does not say."""
    return Found(
        driver=_line(driver),
        cancels=tuple(_line(f"{parameters}/cancels").split()),
        faults=_number(parameters, "faults"),
        cancels_seen=_number(parameters, "cancels_seen"),
        strays=_number(parameters, "strays"),
        isolated=_number(parameters, "isolated"),
    )


class GuardDevice:
    """The device of a module that is loaded. The constructor raises ResilienceError when it cannot be used."""

    def __init__(self, device: str = DEVICE) -> None:
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            hint = "" if error.errno == errno.EACCES else "is mps_guard.ko loaded? see docs/how-to/guard-module.md"
            raise ResilienceError("guard", "cannot be used", f"{device}: {error.strerror}", hint=hint) from error

    def fileno(self) -> int:
        return self._fd

    def read(self) -> tuple[Record, ...]:
        """New records, oldest first. Raises WireError for those of another version."""
        try:
            return parse_records(os.read(self._fd, _RING * SIZE))
        except BlockingIOError:
            return ()

    def learn(self, uuid: GpuUuid) -> None:
        """Teach the module a GPU: address spaces are sunk on GPUs that it knows. Raises ResilienceError."""
        match = _UUID.match(uuid)
        if match is None:
            raise ResilienceError("guard", "not a GPU's UUID", uuid)
        self._say(f"gpu {''.join(match.groups())}")

    def acknowledge(self, incident: int) -> bool:
        """Say that the client of an incident is being ended; False when the module has forgotten it."""
        try:
            self._say(f"ack {incident}")
        except ResilienceError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOENT:
                return False
            raise
        return True

    def _say(self, line: str) -> None:
        try:
            os.write(self._fd, line.encode("ascii"))
        except OSError as error:
            raise ResilienceError(
                "guard", f"does not take {line.split(maxsplit=1)[0]!r}", error.strerror or error
            ) from error

    def close(self) -> None:
        os.close(self._fd)


class ClientEnder:
    """ClientEnd port: ends an isolated client in the safe order."""

    def __init__(self, mps: Mps) -> None:
        self._mps = mps

    def __call__(self, process: Process, server: ServerId | None) -> str:
        """End a client; its server first, when that is known. What could not be done, in words; empty: all of it.

        A process that has ended, or whose number is another's by now, is left alone and counts as ended.
        """
        wrong = ""
        if server is not None:
            try:
                if not self._mps.terminate_client(server, process.pid):
                    wrong = f"the server does not know process {process.pid}"
            except ResilienceError as error:
                wrong = str(error)
        return "; ".join(word for word in (wrong, kill(process)) if word)


def kill(process: Process) -> str:
    """SIGKILL to a process and no other; why not, in words, empty when it got it or has gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return ""
    except OSError as error:
        return f"process {process.pid}: {error.strerror}"
    try:
        # The handle stands for one process: if that is the one meant now, the signal cannot reach another.
        if starttime(process.pid) == process.starttime:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError as error:
        return f"process {process.pid}: {error.strerror}"
    finally:
        os.close(handle)
    return ""
