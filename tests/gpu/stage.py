"""The stage on which an experiment happens: MPS servers of its own and GPU processes on strings, all gone afterwards.

Relies on `python3` and the driver's library; on `nvidia-cuda-mps-control` for servers (`Stage.mps` is empty where there is none, or
where the run has seen that no client is served: `WITHOUT_MPS` is set).
Guarantees that every process and directory that it started is ended at `close`, hung ones included. Never changes a setting of the GPU.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.gpu.leftovers import end_leftovers
from tests.gpu.servers import Server
from tests.gpu.strings import ANSWER_SECONDS, ROOT, Puppet, PuppetGone

__all__ = ["ROOT", "Cast", "Program", "Puppet", "PuppetGone", "Server", "Stage", "Unhealthy"]

WITHOUT_MPS = "MPSR_RUN_WITHOUT_MPS"
PATIENCE = "MPSR_RUN_PATIENCE"
ONLY_KINDS = "MPSR_RUN_KINDS"
READY_SECONDS = 30.0
"""Longest wait for a server: NVIDIA's own example shows seconds on machines without the persistence daemon."""
RECOVERY_SECONDS, GIVEN_UP_SECONDS = 15.0, 2.0
"""Longest wait for a server in FAULT, and after the first that did not come back."""


class Unhealthy(Exception):
    """What an experiment needs is not there: a process that does not start, a client that is none, memory that is refused."""


class Program(NamedTuple):
    """A puppet's program, and the order that begins its work."""

    module: str = "puppet"
    verb: str = "start"
    seconds: float = ANSWER_SECONDS


RAW = Program()


class Cast:
    """The processes of one row, by name, what they said at their start, and the proof of what they were then."""

    def __init__(self, puppets: dict[str, Puppet], starts: dict[str, dict[str, Any]], proof: dict[str, Any]) -> None:
        self.puppets, self.starts, self.proof = puppets, starts, proof

    def __getitem__(self, name: str) -> Puppet:
        return self.puppets[name]

    def kill(self) -> None:
        for puppet in self.puppets.values():
            puppet.kill()


class Stage:
    def __init__(self, *, small: bool, environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> None:
        """`folder`: an empty one that exists already; its name must be nobody else's."""
        self.small = small
        self.environ = dict(environ)
        without = self.environ.get(WITHOUT_MPS)
        self.mps = "" if without else shutil.which("nvidia-cuda-mps-control", path=self.environ.get("PATH")) or ""
        self.without_mps = without or "no nvidia-cuda-mps-control on this machine"
        self.patience = float(self.environ.get(PATIENCE, "1"))
        self.only_kinds = frozenset(filter(None, self.environ.get(ONLY_KINDS, "").split(",")))
        self.ready_words = {"ACTIVE"}
        self.ready_seconds, self.recovery_seconds = READY_SECONDS, RECOVERY_SECONDS
        self.folder = folder or Path(tempfile.mkdtemp(prefix="hw", dir="/tmp"))
        self.servers: list[Server] = []
        self.puppets: list[Puppet] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(self.puppets)
        for server in self.servers:
            server.close()
        end_leftovers(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def end(puppets: list[Puppet]) -> None:
        for puppet in puppets:
            if puppet.process.poll() is None:
                puppet.kill()

    def server(self, name: str, *, options: tuple[str, ...] = (), private: bool = True) -> Server:
        return self.open(name, options=options, private=private)[0]

    def open(self, *names: str, options: tuple[str, ...] = (), private: bool = True) -> list[Server]:
        """Servers that start at the same time; returns once each is ready, or has failed."""
        made = [Server(self, name, options=options, private=private) for name in names]
        self.servers += made
        for server in made:
            server.started()
        return made

    def usable(self, server: Server) -> Server:
        """That server, or another in its place where it did not come back from a fault."""
        if server.ready(server.wait_ready()):
            return server
        server.close()
        return self.server(f"{server.name}+", options=server.options, private=server.private)

    def give_up(self) -> None:
        """A server did not come back: do not wait as long for the next one."""
        self.recovery_seconds = GIVEN_UP_SECONDS

    def puppet(self, name: str, server: Server | None = None, uid: int | None = None, module: str = "puppet") -> Puppet:
        """A process that is a client of `server`, or of none (its pipe directory does not exist); `uid`: of another user than root."""
        outside = {"CUDA_MPS_PIPE_DIRECTORY": str(self.folder / "nowhere")}
        env = {**self.environ, **(server.env if server else outside)}
        self.puppets.append(Puppet(name, env, uid, module=module, patience=self.patience))
        return self.puppets[-1]

    def begun(self, name: str, server: Server | None = None) -> dict[str, Any]:
        """What a process of that place hears at its start; it is gone afterwards."""
        puppet = self.puppet(name, server)
        try:
            return puppet.ask("start")
        except PuppetGone as gone:
            return {"gone": gone.how}
        finally:
            puppet.kill()

    def cast(self, program: Program = RAW, /, **places: Server | None) -> Cast:
        """A process for each name, a client of that server or of none, all started at the same time; healthy, and where they
        should be, or `Unhealthy`."""
        puppets = {name: self.puppet(name, server, module=program.module) for name, server in places.items()}
        for puppet in puppets.values():
            puppet.send(program.verb)
        starts = {name: puppet.hear(program.seconds) for name, puppet in puppets.items()}
        servers = {server.name: server for server in places.values() if server is not None}
        lists = {name: server.clients() for name, server in servers.items()}
        proof: dict[str, Any] = {
            "clients": {
                name: {
                    "server": server.name if server else None,
                    "code": starts[name]["code"],
                    "mps": starts[name].get("mps"),
                    "pid": puppets[name].process.pid,
                    "listed": server is not None and str(puppets[name].process.pid) in lists[server.name],
                    "start_ms": sum(call["us"] for call in starts[name].get("calls", {}).values()) / 1000,
                }
                for name, server in places.items()
            },
            "servers": {name: self.told(server) for name, server in servers.items()},
        }
        for name, one in proof["clients"].items():
            if one["code"]:
                raise Unhealthy(f"{name} does not start: CUDA error {one['code']}")
            if one["mps"] != (one["server"] is not None):
                where = f"a client of server {one['server']}" if one["server"] else "outside MPS"
                raise Unhealthy(f"{name} is not {where}: attribute 133 is {one['mps']}")
        return Cast(puppets, starts, proof)

    @staticmethod
    def told(server: Server) -> dict[str, Any]:
        state = server.state()
        return {"pid": server.pid(), "state": state, "ready": server.ready(state)}

    def bytes(self, mib: int) -> int:
        """A size of an experiment; a thirty-second of it on a small stage (a simulated GPU lives in host memory)."""
        return max(2, mib // 32 if self.small else mib) << 20

    def kinds(self, kinds: Iterable[str]) -> list[str]:
        """Those of the faults that the run is to commit."""
        return [kind for kind in kinds if not self.only_kinds or kind in self.only_kinds]

    def logs(self) -> str:
        return "\n".join(server.logged() for server in self.servers)
