"""The guard module's device: its records and the words it takes.

/dev/mps_guard exists while mps_guard.ko is loaded; root alone may open it, and an open reader keeps the module loaded.
Whether the module isolates anything is the business of its parameters, which everybody may read.
"""

import errno
import os
import re

from resilience.model.errors import ResilienceError
from resilience.model.guard import GuardStanding, Level
from resilience.model.ids import GpuUuid
from resilience.parse.guard import SIZE, GuardRecord, parse_records

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


def found(parameters: str = PARAMETERS, driver: str = DRIVER_VERSION) -> GuardStanding:
    """Zeros and nothing where the module is not loaded, or is of a release that does not say."""
    return GuardStanding(
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

    def read(self) -> tuple[GuardRecord, ...]:
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
