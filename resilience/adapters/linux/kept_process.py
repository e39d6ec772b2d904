"""A program that this process keeps beside itself: started again when it ends, ended with us.

Its standard input is a pipe that nobody writes to: it ends when that does, also when we are killed. A thread waits for
it, so that nobody polls. A program that cannot live is started ever more seldom, every minute in the end.
"""

import subprocess
import threading
from collections.abc import Callable, Sequence

_PAUSE_FIRST, _PAUSE_MOST = 1.0, 60.0
"""Seconds before the first new start, and at most."""
_PATIENCE = 2.0
"""Seconds for the program to end on its own when it is told to."""


class KeptProcess:
    """`say` takes a line for the admin when the program has ended or cannot be started."""

    def __init__(self, name: str, argv: Sequence[str], say: Callable[[str], None]) -> None:
        self._name = name
        self._argv = list(argv)
        self._say = say
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"mpsr-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause = _PAUSE_FIRST
        while True:
            with self._starting:
                if self._stop.is_set():
                    return
                try:
                    self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE)
                except OSError as error:
                    wrong = f"cannot be started: {error}"
            if self._process is not None:
                wrong = f"ended with status {self._process.wait()}"
                self._process = None
            if self._stop.is_set():
                return
            self._say(f"{self._name}: {wrong}; it is started again in {pause:g} s")
            self._stop.wait(pause)
            pause = min(2 * pause, _PAUSE_MOST)

    def close(self) -> None:
        self._stop.set()
        with self._starting:
            process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            self._thread.join(_PATIENCE)
            process.kill()
        self._thread.join(_PATIENCE)
