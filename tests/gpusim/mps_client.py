"""A bare MPS client: what the simulated driver does inside a CUDA program, without a CUDA program.

Job: attach through the control daemon, then obey lines on standard input: `look` prints what the shared page says,
`fault <code> <xid>` marks the page and reports as the driver does, `silent <code>` marks the page and says nothing,
`report <code> <xid>` only reports, `busy <n>` counts its work as the driver does, `hurt` prints what another's end has
done to it. The end of standard input is the end of the client. Tests drive it; by hand it
shows what a daemon answers:

    CUDA_MPS_PIPE_DIRECTORY=… gpusim-mps-client

Prints: `attached context=… minor=…`, `error code=…`, `sticky=… culprit=…`, `terminated`, `lost` (the server has
gone), `no-daemon` (a real driver would now run without MPS).
"""

from __future__ import annotations

import array
import mmap
import os
import select
import struct

from . import mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def _partition(value: str) -> str:
    """The id in `<device UUID>/<partition ID>`; it may have slashes of its own."""
    return value.partition("/")[2] or value


def attach(pipe: str) -> tuple[socket, mmap.mmap, int]:
    """The connection to a server, the shared page and the place of its slot there; SystemExit after saying why there is none."""
    try:
        control = mps_wire.connect(os.path.join(pipe, "control"))
    except OSError:
        say("no-daemon")
        raise SystemExit(0) from None
    mps_wire.send(control, mps_wire.words("client", v=1, pid=os.getpid()))
    verb, values = mps_wire.parse(mps_wire.receive(control))
    if verb != "server":
        say(f"error code={values.get('code', 805)}")
        raise SystemExit(0)
    server = mps_wire.connect(values["path"])
    partition = _partition(os.environ.get("CUDA_MPS_SM_PARTITION", ""))
    mps_wire.send(server, mps_wire.words("attach", v=1, pid=os.getpid(), partition=partition))
    packet, rights, _, _ = server.recvmsg(mps_wire.PACKET_BYTES, 64)
    say(packet.decode())
    if not rights:
        raise SystemExit(0)
    descriptor = array.array("i", rights[0][2])[0]
    slot = int(mps_wire.parse(packet)[1]["slot"])
    return server, mmap.mmap(descriptor, 4096), 16 + 8 * slot


def obey(words: list[str], server: socket, page: mmap.mmap, slot: int) -> None:
    """One line of standard input."""
    if words[0] in ("fault", "silent"):
        page[8:12] = struct.pack("=i", os.getpid())
        page[4:8] = struct.pack("=I", int(words[1]))
    if words[0] in ("fault", "report"):
        mps_wire.send(server, mps_wire.words("fault", code=words[1], xid=words[2], pid=os.getpid()))
    if words[0] == "look":
        _, sticky, culprit, generation = struct.unpack_from("=IIiI", page, 0)
        say(f"sticky={sticky} culprit={culprit} generation={generation}")
    if words[0] == "busy":
        page[slot : slot + 4] = struct.pack("=i", int(words[1]))
    if words[0] == "hurt":
        say(f"hurt={struct.unpack_from('=I', page, slot + 4)[0]}")


def main() -> None:
    """Entry point of build/gpusim/bin/gpusim-mps-client."""
    server, page, slot = attach(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(server.fileno(), select.POLLIN)
    buffered = b""
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                data = os.read(0, 4096)
                if not data:
                    return
                *lines, buffered = (buffered + data).split(b"\n")
                for line in lines:
                    obey(line.decode().split(), server, page, slot)
                continue
            packet = mps_wire.receive(server)
            if packet == b"terminate":
                say("terminated")
                mps_wire.send(server, b"terminated")
            elif not packet:
                say("lost")
                poll.unregister(server.fileno())
