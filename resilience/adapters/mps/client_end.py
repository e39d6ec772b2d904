"""The one way in which a process that may have work on a GPU is ended from here: its MPS clients first, then the signal.

NVIDIA's MPS document leaves undefined what a client that ends with work in flight does to the other clients of its server;
`terminate_client` takes its work off the GPU without harm to them. So no signal of ours reaches such a process before the
control daemon has answered, or has had ANSWER_SECONDS. The supervisor does the same in C and has the agent ask
(spank_plugin/launcher/ending.c). tests/unit/test_one_way_to_end.py looks for any other.
"""

from collections.abc import Callable, Iterable

from resilience.adapters.linux import processes
from resilience.adapters.linux.processes import ObservedProcess
from resilience.model.errors import ResilienceError
from resilience.model.ids import ProcessId, ServerId
from resilience.ports import Mps


class ClientEnder:
    """ClientEnd port: ends one client whose server is known."""

    def __init__(self, mps: Mps) -> None:
        self._mps = mps

    def __call__(self, process: ProcessId, server: ServerId | None) -> str:
        """End a client, without time to tidy up. What could not be done, in words; empty: all of it.

        A process that has ended, or whose number is another's by now, is left alone and counts as ended.
        """
        wrong = ""
        if server is not None:
            try:
                if not self._mps.end_clients(server, lambda pid: pid == process.pid):
                    wrong = f"the server does not know process {process.pid}"
            except ResilienceError as error:
                wrong = str(error)
        return "; ".join(word for word in (wrong, processes.kill(process)) if word)


def end(
    mps: Mps,
    servers: Iterable[ServerId],
    meant: Iterable[ObservedProcess],
    *,
    grace: float,
    still_meant: Callable[[ObservedProcess], bool],
) -> tuple[tuple[ObservedProcess, ...], tuple[str, ...]]:
    """End processes that may be clients of these servers: SIGTERM, `grace` seconds, SIGKILL.

    Gives those that outlive it, and what went wrong with a server, in words.
    """
    meant = tuple(meant)
    pids = {seen.process.pid for seen in meant}
    wrong: list[str] = []
    for server in servers if pids else ():
        try:
            mps.end_clients(server, pids.__contains__)
        except ResilienceError as error:
            wrong.append(str(error))
    return processes.end(meant, grace=grace, still_meant=still_meant), tuple(wrong)
