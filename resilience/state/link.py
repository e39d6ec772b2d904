"""A program's connection to its keeper.

It keeps a copy of what was deposited. A thread that sleeps in poll() notices when the keeper dies, connects to the
next one (the supervisor starts it at the same path) and, in the process that is the writer, deposits again. So kept
state survives a keeper's death as long as one process that has it lives. What the keeper refuses raises StateError
with its reason.
"""

import contextlib
import os
import select
import socket
import sys
import threading
import time
from typing import Any

from resilience.adapters.linux.readable import readable
from resilience.model.errors import StateError, WireError
from resilience.state import wire
from resilience.state.names import STATE_VERSION

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.1
"""Seconds between two tries to connect: a keeper takes about 30 ms to start."""
_ANSWER_TIMEOUT = 5.0
"""Seconds; the keeper answers in well under a millisecond unless it is stopped."""
_TAKE_TIMEOUT = 5.0
"""Seconds for a keeper to start and to get the state from the process that has it; some 0.1 on a quiet machine."""
_LOST = "keeper and program ended together; the next rung starts from the state on disk, if any"

Deposit = tuple[dict[str, Any], list[int]]
"""A layout and its descriptors: table, commit record, and those of the memory; the table alone for a standby."""


def owned(held: Deposit | None, name: str) -> Deposit | None:
    """What is held, when it is the state of that name: not of a program that ran before under the same supervisor."""
    if held is None or held[0].get("name", name) == name:
        return held
    wire.close_all(held[1])
    return None


class _Busy(StateError):
    """Another process is the writer and has not quite gone."""


class KeeperLink:
    """One attached connection. Methods may be called from one thread; the watching thread only reconnects."""

    def __init__(self, path: str, token: str, role: str, *, timeout: float = 5.0) -> None:
        """Attach within `timeout` seconds. Raises StateError. `first` is what was held at that time, or None."""
        self._path = path
        self._token = token
        self.role = role
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._deposit: Deposit | None = None
        self._wake, self._woken = os.pipe()
        self._thread: threading.Thread | None = None
        self._told = ""
        self.first = self._attach(time.monotonic() + timeout)

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket else -1

    # ------------------------------------------------------------ talk
    def _attach(self, deadline: float) -> Deposit | None:
        """Connect and attach; tries again while nobody listens or the old writer has not quite gone."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._attach_once()
            except (OSError, StateError) as error:
                self._hang_up()
                if isinstance(error, StateError) and (not isinstance(error, _Busy) or time.monotonic() > deadline):
                    raise
                if time.monotonic() > deadline:
                    raise StateError("keeper", f"does not answer at {self._path}", error) from None
            if readable(self._wake, timeout=pause):
                raise StateError("keeper", "connection given up")
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _attach_once(self) -> Deposit | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = connection
        connection.settimeout(_ANSWER_TIMEOUT)
        connection.connect(self._path)
        message = {"op": "attach", "v": STATE_VERSION, "token": self._token, "role": self.role}
        answer, fds = self._ask(message)
        return (answer["layout"], fds) if answer.get("layout") else None

    def _ask(self, message: wire.Message, fds: list[int] | None = None) -> tuple[wire.Message, list[int]]:
        """One question and its answer. Raises StateError when refused, OSError when the keeper has gone."""
        if self._socket is None:
            raise ConnectionResetError("no connection")
        wire.send(self._socket, message, fds or ())
        return self._hear()

    def _hear(self) -> tuple[wire.Message, list[int]]:
        if self._socket is None:
            raise ConnectionResetError("no connection")
        try:
            packet = wire.receive(self._socket)
        except WireError as error:
            raise StateError("keeper", "answered what cannot be read", error) from None
        if packet is None:
            raise ConnectionResetError("the keeper has gone")
        if packet[0]["op"] == "refused":
            wire.close_all(packet[1])
            kind = _Busy if packet[0].get("busy") is True else StateError
            raise kind("keeper", "refused", packet[0].get("reason", ""))
        return packet

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _give_up(self) -> None:
        """Break a connection whose answers can no longer be told apart; the watching thread makes a new one."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------ what sessions ask
    def put(self, layout: dict[str, Any], fds: list[int]) -> None:
        """Deposit. A keeper that is away gets it later; one that refuses raises StateError."""
        with self._lock:
            self._deposit = (layout, fds)
            try:
                self._ask({"op": "put", "layout": layout}, fds)
            except OSError:
                self._give_up()

    def remember(self, layout: dict[str, Any], fds: list[int]) -> None:
        """What this process holds too, though another deposited it."""
        with self._lock:
            self._deposit = (layout, fds)

    def drop(self) -> bool:
        """The program has ended well: nobody is to go on from its state. False: the keeper is away, or has another writer."""
        with self._lock:
            self._deposit = None
            with contextlib.suppress(OSError, StateError):
                return str(self._ask({"op": "drop"})[0]["op"]) == "dropped"
        return False

    def ask_to_wait(self) -> None:
        """Ask for what is held once something is; `heard_layout` takes the answer when the connection is readable."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                wire.send(self._socket, {"op": "wait"})

    def heard_layout(self) -> Deposit | None:
        """The answer to `ask_to_wait`; after a keeper's death it connects to the next and asks again (None)."""
        try:
            answer, fds = self._hear()
        except OSError:
            self._hang_up()
            held = self._attach(time.monotonic() + _ANSWER_TIMEOUT)
            if held is None:
                self.ask_to_wait()
            return held
        return answer["layout"], fds

    def take(self, token: str, *, expected: bool, timeout: float = _TAKE_TIMEOUT) -> Deposit | None:
        """What is held, for the process that was promoted with that token; it is the writer from now on.

        None when nothing is held. `expected`: something was, so a new keeper is waited for until another process has
        given it that. Raises StateError.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._token = token
            while True:
                try:
                    answer, fds = self._ask({"op": "take", "token": token, "expected": expected})
                    if answer.get("layout") or not expected:
                        self.role = "active"
                        return (answer["layout"], fds) if answer.get("layout") else None
                    self._wait_for_deposit(deadline)
                except OSError:
                    self._hang_up()
                    self._attach(deadline)  # to the next keeper, as a standby still: the writer is to come

    def _wait_for_deposit(self, deadline: float) -> None:
        if self._socket is None:
            raise ConnectionResetError("no connection")
        wire.send(self._socket, {"op": "wait"})
        if not readable(self._socket, timeout=deadline - time.monotonic()):
            raise StateError("keeper", "nobody has given it the kept state anew", self._path, hint=_LOST)
        wire.close_all(self._hear()[1])

    def status(self) -> wire.Message:
        """The keeper's own account. Raises StateError or OSError."""
        with self._lock:
            return self._ask({"op": "status"})[0]

    # ------------------------------------------------------------ healing
    def watch(self) -> None:
        """Watch the connection from now on."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._watch, name="mpsr-keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._woken, b"e")
        if self._thread is not None:
            self._thread.join(timeout=_ANSWER_TIMEOUT)
        self._hang_up()

    def _watch(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            with self._lock:
                watched = self._socket
                if watched is not None:
                    poll.register(watched, select.POLLRDHUP)  # hang-up only: answers are read by who asked
                    pause = _FIRST_PAUSE
            woken = poll.poll(None if watched is not None else pause * 1000)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if any(fd == self._wake for fd, _ in woken):
                return
            with self._lock:
                if self._socket is watched:  # else somebody has connected anew meanwhile
                    self._heal()

    def _heal(self) -> None:
        """The connection is gone: one try to make a new one and, as the writer, to deposit there."""
        self._hang_up()
        try:
            held = self._attach_once()
            if held is not None:
                wire.close_all(held[1])
            elif self.role == "active" and self._deposit is not None:
                self._ask({"op": "put", "layout": self._deposit[0]}, self._deposit[1])
        except OSError:
            self._hang_up()
        except StateError as error:
            if str(error) != self._told:
                self._told = str(error)
                print(f"mpsr: {error}", file=sys.stderr)
            self._hang_up()
