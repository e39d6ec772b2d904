"""`nvidia-cuda-mps-server`, simulated: one server, its clients, and what a fatal fault does to them.

Job: accept clients (uid rule, client limit), hand each the shared page, and walk NVIDIA's documented sequence at a
fault: ACTIVE -> FAULT, log the culprit and everybody affected, refuse newcomers with 807, wait until every affected
client has left, destroy and create the contexts (`rebuild_ms`), ACTIVE again.

Relies on: the control daemon that forked it: descriptor 3 is the link to it, 4 the listening socket, 5 server.log (or
absent). Tells the control daemon at once of each change of state and of clients, before it answers the client that
caused it: whoever asks the control daemon after that sees the change.

On failure: without the control daemon it serves on and ends with its last client (profile H10: `control daemon
killed`).
"""

from __future__ import annotations

import os
import select
import time

from . import dialect as dialects
from . import mps_endings, mps_host, mps_inject, mps_log, mps_page, mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

LINK, LISTENER, LOG = 3, 4, 5
NO_DEVICE = "no CUDA-capable device is detected"
MMU_FAULT, SM_FAULT = 31, 13
FOREVER = float("inf")
CUDA_INVALID_VALUE, CUDA_SERVER_NOT_READY, CUDA_MAX_CLIENTS = 1, 807, 808
CUDA_ILLEGAL_ADDRESS, CUDA_INVALID_RESOURCE_CONFIGURATION = 700, 915


class Client:
    """One attached context: the pid and uid that the kernel vouches for, and where it stands.

    `partition` is the static SM partition that it runs in, empty without one; `slot` its place on the page.
    """

    __slots__ = ("affected", "answered", "context", "page", "partition", "pid", "slot", "sock", "terminated")

    def __init__(self, sock: socket, pid: int, context: int, partition: str, page: mps_page.Page) -> None:
        self.sock = sock
        self.page = page
        self.slot = page.take()
        self.pid = pid
        self.context = context
        self.partition = partition
        self.affected = False
        self.terminated = False
        self.answered = False


class Server:
    """The state of one server process; `run` is its loop."""

    def __init__(self, link: socket, listener: socket, log: int | None, config: dict[str, str]) -> None:
        self.dialect = dialects.DIALECTS[config["dialect"]]
        self.log = mps_log.Log(log, self.dialect.role)
        self.config = config
        self.link: socket | None = link
        self.listener = listener
        host = mps_host.read()
        self.gpus = host.visible(os.environ.get("CUDA_VISIBLE_DEVICES")) if host else []
        self.state = "INITIALIZING"
        self.generation = 1
        self.pages: dict[str, mps_page.Page] = {}
        self.partitions = {word for word in config.get("partitions", "").split(",") if word}
        self.faulted: set[str] = set()
        self.peers: dict[int, socket] = {listener.fileno(): listener, link.fileno(): link}
        self.clients: dict[int, Client] = {}
        self.contexts: dict[int, int] = {}
        self.retiring = False
        self.timer: tuple[float, str] | None = None
        self.terminating: mps_endings.Termination | None = None
        self.lots = mps_endings.Lots()
        self.limits = config.get("limits", "")
        self.allowed: dict[int, tuple[str, float]] = {}
        self.percentage = float(config["percentage"])
        self.poll = select.poll()
        for descriptor in self.peers:
            self.poll.register(descriptor, select.POLLIN)

    # -- telling others ---

    def note(self, key: str, **values: object) -> None:
        """Log in the dialect's words; nothing where it has none."""
        text = self.dialect.say(key, **values)
        if text:
            self.log.note(text)

    def report(self, verb: str, **values: object) -> None:
        """Tell the control daemon."""
        if self.link is not None:
            mps_wire.send(self.link, mps_wire.words(verb, **values))

    def become(self, state: str) -> None:
        """Change state and say so."""
        self.state = state
        self.report("state", name=state)

    def report_clients(self) -> None:
        """Tell the control daemon who is attached: `pid:context` of every context that has not been terminated."""
        alive = [f"{one.pid}:{one.context}" for one in self.clients.values() if not one.terminated]
        self.report("clients", count=len(self.clients), list=",".join(alive))

    # -- start and end ---

    def start(self) -> None:
        """Log the start; die as the real one does where there is no GPU."""
        pipe = self.config["pipe"]
        self.log.note("Startup")
        self.log.note(f"Connecting to control daemon on socket: {pipe}/control")
        self.report("hello")
        self.log.note("Initializing server process")
        if not self.gpus:
            self.log.note(f"Driver initialization failed with: {NO_DEVICE}")
            self.log.note(f"Failed to start : {NO_DEVICE}")
            self.report("failed")
            raise SystemExit(1)
        self.create_contexts()
        self.note("percentage", value=self.percentage)
        for word in self.limits.split(",") if self.limits else ():
            device, _, size = word.partition(":")
            self.note("pinned", device=int(device), bytes=int(size))
        self.log.note(f"Server Priority set to {self.config['priority']}")
        self.timer = (time.monotonic() + mps_inject.number("server_init_ms", 0) / 1000, "started")

    def create_contexts(self) -> None:
        for ordinal, gpu in enumerate(self.gpus):
            self.note("create", device=ordinal, name=gpu.name)

    def finish(self) -> None:
        """The orderly end."""
        if self.dialect.lazy:
            self.log.note("Exiting")
        raise SystemExit(0)

    # -- clients ---

    def attach(self, sock: socket) -> None:
        """The first packet of a connection: let the client in or say why not, and drop it."""
        verb, values = mps_wire.parse(mps_wire.receive(sock))
        pid, uid = mps_wire.credentials(sock)
        partition = values.get("partition", "")
        code = self.admit(pid, uid, partition) if verb == "attach" and values.get("v") == "1" else CUDA_INVALID_VALUE
        if code:
            mps_wire.send(sock, mps_wire.words("error", code=code))
            self.drop(sock)
            return
        context = self.contexts[pid] = self.contexts.get(pid, 0) + 1
        client = self.clients[sock.fileno()] = Client(sock, pid, context, partition, self.page(partition))
        self.note("new", pid=pid, context=context)
        self.note("worker", pid=pid, context=context)
        for gpu in self.gpus:
            self.log.note(f"Device {gpu.name} (uuid {gpu.uuid}) is associated")
        self.note("active", pid=pid, context=context)
        self.report_clients()
        minors = ",".join(str(gpu.minor) for gpu in self.gpus)
        limits, percentage = self.allowed.get(pid, (self.limits, self.percentage))
        answer = mps_wire.words(
            "attached", context=context, minor=minors, percentage=percentage, limits=limits, pid=pid, slot=client.slot
        )
        mps_wire.send(sock, answer, client.page.descriptor)

    def page(self, partition: str) -> mps_page.Page:
        """The page that the clients of one partition share."""
        if partition not in self.pages:
            self.pages[partition] = mps_page.Page(self.generation)
        return self.pages[partition]

    def admit(self, pid: int, uid: int, partition: str) -> int:
        """0, or the CUDA error that this client gets."""
        context = self.contexts.get(pid, 0) + 1
        self.look()
        if partition and partition not in self.partitions:
            return CUDA_INVALID_VALUE
        if not partition and self.config["static"] == "1" and mps_inject.number("partition_needed", 1):
            return CUDA_INVALID_RESOURCE_CONFIGURATION
        if self.state != "ACTIVE" or self.retiring or self.terminating or partition in self.faulted:
            self.note("refused", pid=pid, context=context)
            return CUDA_SERVER_NOT_READY
        if self.config["multiuser"] != "1" and uid != os.getuid():
            return CUDA_SERVER_NOT_READY
        limit = mps_inject.number("client_limit", self.dialect.client_limit)
        if len(self.clients) >= limit:
            self.note("full", limit=limit)
            return CUDA_MAX_CLIENTS
        return 0

    def drop(self, sock: socket) -> None:
        """The end of a connection, before or after its attach."""
        descriptor = sock.fileno()
        self.poll.unregister(descriptor)
        del self.peers[descriptor]
        client = self.clients.pop(descriptor, None)
        sock.close()
        if client is None:
            return
        self.look()
        if all(one.pid != client.pid for one in self.clients.values()):
            self.contexts.pop(client.pid, None)
            self.allowed.pop(client.pid, None)
        self.bury(client)
        self.note("exit", pid=client.pid, context=client.context)
        self.note("left", pid=client.pid, context=client.context, count=len(self.clients))
        self.report_clients()
        self.settle_termination()
        if client.partition in self.faulted and all(one.partition != client.partition for one in self.clients.values()):
            self.faulted.discard(client.partition)
            self.renew(client.partition)
        if self.state == "FAULT" and self.timer is None and not any(one.affected for one in self.clients.values()):
            for ordinal, gpu in enumerate(self.gpus):
                self.note("destroy", device=ordinal, name=gpu.name)
            self.timer = (time.monotonic() + mps_inject.number("rebuild_ms", 50) / 1000, "rebuilt")
        if not self.clients and (self.retiring or self.link is None):
            self.finish()

    def bury(self, client: Client) -> None:
        """A client has gone: with work in flight, and without terminate_client, that may hurt the others."""
        busy = client.page.busy(client.slot) > 0 and not client.page.read()[0]
        client.page.free(client.slot)
        if busy and not client.terminated:
            self.lots.draw(client.pid, [(one.page, one.slot) for one in self.clients.values() if one.pid != client.pid])

    # -- faults ---

    def look(self) -> None:
        """Has a client marked a page? It may have died before it could say so."""
        for partition, page in list(self.pages.items()):
            sticky, culprit = page.read()
            if sticky and self.state == "ACTIVE" and partition not in self.faulted:
                self.fault(sticky, culprit, MMU_FAULT if sticky == CUDA_ILLEGAL_ADDRESS else SM_FAULT, partition)

    def renew(self, partition: str) -> None:
        """A page without an error for those who come next."""
        self.generation += 1
        page = self.pages.pop(partition, None)
        if page is not None:
            page.close()

    def fault(self, code: int, pid: int, xid: int, partition: str) -> None:
        """A fatal fault of client `pid`: everybody attached is affected, unless SM faults stay in their partition."""
        isolated = xid == SM_FAULT and bool(self.partitions) and mps_inject.number("partition_isolates", 0) == 1
        affected = [one for one in self.clients.values() if not isolated or one.partition == partition]
        for name, page in list(self.pages.items()):
            if (not isolated or name == partition) and not page.read()[0]:
                page.fault(code, pid)
        context = next((one.context for one in self.clients.values() if one.pid == pid), 1)
        self.note("culprit", pid=pid, context=context)
        self.note("handling")
        for client in affected:
            client.affected = True
            self.note("inactive" if client.pid == pid else "active", pid=client.pid, context=client.context)
        self.note("sticky")
        for client in affected:
            self.note("sticky_client", pid=client.pid)
        for client in affected:
            self.note("torn", pid=client.pid, context=client.context, device=0)
        if isolated:
            self.faulted.add(partition)
        else:
            self.become("FAULT")

    def hear(self, client: Client, packet: bytes) -> None:
        """A packet of an attached client."""
        verb, values = mps_wire.parse(packet)
        if verb == "fault":
            xid = int(values.get("xid", "0"))
            guarded = mps_inject.number("guard", 0) == 1 and xid == MMU_FAULT
            if self.state == "ACTIVE" and not guarded and client.partition not in self.faulted:
                self.fault(int(values["code"]), int(values["pid"]), xid, client.partition)
        elif verb == "terminated":
            client.answered = True
            self.settle_termination()

    # -- commands of the control daemon ---

    def obey(self, packet: bytes) -> None:
        """A packet of the control daemon; an empty one is its end."""
        verb, values = mps_wire.parse(packet)
        if not packet and self.link is not None:
            self.poll.unregister(LINK)
            del self.peers[LINK]
            self.link = None
            if not self.clients:
                self.finish()
        elif verb == "shutdown":
            self.log.note("Server has been notified to shutdown")
            if values["force"] == "1" or not self.clients:
                self.finish()
            self.log.note(f"Server was unable to shutdown due to {len(self.clients)} active clients")
            self.retiring = values["retire"] == "1"
        elif verb == "terminate":
            self.terminate(int(values["pid"]))
        elif verb == "percentage":
            self.percentage = float(values["value"])
            self.note("percentage", value=self.percentage)
        elif verb == "limits":
            self.limits = values["list"]
        elif verb == "admit":  # protocol 3: what the namespace of a client that is about to come allows
            size = int(values["limit"])
            limits = ",".join(f"{ordinal}:{size}" for ordinal in range(len(self.gpus))) if size else ""
            self.allowed[int(values["pid"])] = (limits, float(values["percentage"]))
        elif verb == "partitions":
            self.partitions = {word for word in values["list"].split(",") if word}

    def terminate(self, pid: int) -> None:
        """End one client's contexts; the answer follows when it has said that it knows."""
        code = mps_inject.number("terminate_code", 0)
        if code or not any(one.pid == pid and not one.terminated for one in self.clients.values()):
            self.note("terminate_unknown", pid=pid)
            self.report("terminated", result=code or CUDA_INVALID_VALUE)
            return
        self.terminating = mps_endings.Termination(pid, time.monotonic())
        self.settle_termination()

    def settle_termination(self) -> None:
        """Begin terminate_client when it is time; answer when every context of the target has, has gone, or has had its
        time."""
        one, now = self.terminating, time.monotonic()
        if one is None:
            return
        targets = [client for client in self.clients.values() if client.pid == one.pid]
        if targets and not one.begun and now >= one.begins:
            one.begun = True
            for client in targets:
                self.note("terminating", pid=one.pid, context=client.context)
                client.terminated = True
                mps_wire.send(client.sock, b"terminate")
            self.report_clients()
        if now < one.ends and any(not client.answered for client in targets):
            return
        self.terminating = None
        self.note("terminated")
        self.report("terminated", result=0)

    # -- the loop ---

    def tick(self) -> float | None:
        """Do what is due; milliseconds until the next thing, or None."""
        now = time.monotonic()
        self.settle_termination()
        if self.timer is not None and now >= self.timer[0]:
            what, self.timer = self.timer[1], None
            if what == "rebuilt":
                for partition in list(self.pages):
                    self.renew(partition)
                self.faulted.clear()
                self.create_contexts()
            else:
                self.log.note("Server has started")
            self.become("ACTIVE")
        due = self.timer[0] if self.timer is not None else FOREVER
        if self.terminating is not None:
            due = min(due, self.terminating.due())
        return max(0.0, (due - now) * 1000 + 1) if due != FOREVER else None

    def run(self) -> None:
        """Serve until SystemExit."""
        self.start()
        while True:
            for descriptor, _ in self.poll.poll(self.tick()):
                sock = self.peers.get(descriptor)
                if sock is None:
                    continue
                if descriptor == self.listener.fileno():
                    fresh = mps_wire.accept(self.listener)
                    if fresh is not None:
                        self.peers[fresh.fileno()] = fresh
                        self.poll.register(fresh.fileno(), select.POLLIN)
                elif descriptor == LINK:
                    self.obey(mps_wire.receive(sock))
                elif descriptor in self.clients:
                    packet = mps_wire.receive(sock)
                    if packet:
                        self.hear(self.clients[descriptor], packet)
                    else:
                        self.drop(sock)
                else:
                    self.attach(sock)


def main() -> None:
    """Entry point of build/gpusim/bin/nvidia-cuda-mps-server; only a control daemon can start it."""
    try:
        link, listener = mps_wire.adopt(LINK), mps_wire.adopt(LISTENER)
    except OSError:
        raise SystemExit(1) from None
    _, config = mps_wire.parse(mps_wire.receive(link))
    log = LOG if config.get("log") == "1" else None
    if log is not None:
        os.set_inheritable(log, False)
    Server(link, listener, log, config).run()
