"""A standby's waiting: for the state that the active process keeps, and for the word of its supervisor.

Until it is promoted it has the token of a standby, which opens nothing; the word `promote` brings the one that does.
Nothing that it prints is seen before. A supervisor that has gone, or says `retire`, ends the process.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping
from typing import NoReturn

from resilience.adapters.linux.readable import readable
from resilience.model.errors import StateError
from resilience.state import names
from resilience.state.link import Deposit, KeeperLink
from resilience.state.supervisor import GONE, Streams, Supervisor, flush_streams


class Standby:
    """`link` is None where there is no keeper; nothing can be taken over then."""

    def __init__(self, environ: Mapping[str, str], supervisor: Supervisor | None) -> None:
        if supervisor is None:
            raise StateError("session", f"{names.ROLE} is standby, but there is no supervisor", names.FD)
        self._supervisor = supervisor
        self._streams = Streams(environ.get(names.STDIO, ""))
        self.token = environ.get(names.TOKEN, "")
        """The keeper's secret; after `promoted` the one that opens the state."""
        with contextlib.suppress(ImportError):  # what the program will need, before it has to be fast
            importlib.import_module("numpy")

    def wait_for_layout(self, link: KeeperLink | None) -> Deposit | None:
        """What is held, as soon as something is; None when this process was promoted before. Raises StateError."""
        if link is None:
            raise StateError("standby", "there is no keeper to take the state from", names.KEEPER)
        if link.first:
            return link.first
        link.ask_to_wait()
        while True:
            ready = readable(link.fileno(), self._supervisor.fileno())
            if link.fileno() in ready:
                if held := link.heard_layout():
                    return held
            elif self._supervisor.fileno() in ready and self._promoted():
                return None

    def wait_for_promotion(self) -> None:
        flush_streams()
        self._supervisor.say("ready")
        while not self._promoted():
            pass

    def _promoted(self) -> bool:
        """One word of the supervisor; True when this process is now the active one."""
        word = self._supervisor.heard()
        verb = word[0] if word else ""
        if verb in ("retire", GONE):
            os._exit(names.EXIT_OK)
        if verb == "fail":
            cannot(word[1].get("reason", "") if word else "")
        if word is None or verb != "promote":
            return False
        self._streams.put_back()
        self.token = word[1].get("token", self.token)
        return True


def cannot(reason: str) -> NoReturn:
    """End a standby that is of no use."""
    print(f"mpsr: standby: {reason}", file=sys.stderr, flush=True)
    os._exit(names.EXIT_FAILED)
