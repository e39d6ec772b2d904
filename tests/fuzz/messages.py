"""Fuzz targets: what programs of users send, and what they leave in files that a program of ours reads.

A target takes any bytes and returns. Errors that the parser documents are its answer; whatever else it raises is a find.
"""

import os
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from resilience.adapters.linux import hook_server, spill_records
from resilience.agent import messages
from resilience.metrics.fold import Fold
from resilience.model.errors import ConfigError, StateError, WireError
from resilience.model.ids import JobId, StepId, TaskId, TaskRef
from resilience.model.records import journal, told
from resilience.model.settings import Options as Rules
from resilience.parse import lease, options, packet, rules
from resilience.report import journal_lines, overview, timeline
from resilience.state import identity, layout, leftover, record, spillfile, wire
from tests.fuzz.texts import text

REF = TaskRef(job=JobId(1), step=StepId(0), task=TaskId(0))
WORK = Path(tempfile.mkdtemp(prefix="mpsr-fuzz-"))
PLACE = spillfile.SpillPlace(
    directory=WORK, cluster="c", job="1", owner="s", task="0", restart=0, run="r", runs=frozenset({"r"})
)  # fmt: skip


def agent_packets(data: bytes) -> None:
    try:
        verb, words = packet.unpack(data)
    except WireError:
        return
    assert packet.unpack(packet.pack(verb, **words)) == (verb, words)
    for take in (lambda: messages.hello(verb, words), lambda: messages.message(REF, verb, words)):
        _answered(take)


def _answered(call: Callable[[], object]) -> None:
    with suppress(WireError, ConfigError, StateError):
        call()


def leases(data: bytes) -> None:
    try:
        found = lease.parse(text(data))
    except WireError:
        return
    again = lease.parse(lease.render(found))
    assert again == replace(found, opened=again.opened)
    assert abs(again.opened - found.opened) < 0.001


def option_strings(data: bytes) -> None:
    try:
        found = options.parse(text(data))
    except ConfigError:
        return
    assert options.parse(options.serialize(found)) == found
    rows = Rules(locked=("threads",), forbidden=("recover=requeue", "domain=shared"))
    for take in (rules.on_node, rules.in_force):
        _answered(lambda take=take: take(options.to_values(found), rows))  # type: ignore[misc]
    _answered(lambda: rules.within(found, options.parse(""), rows))


def journal_files(data: bytes) -> None:
    """A torn or strange journal is shown, folded into figures and drawn."""
    lines = text(data).split("\n")
    fold = Fold()
    for line in lines:
        fold.line(line)
        if (entry := journal.parse(line)) is None:
            continue
        entry.sentence()
        entry.jobs()
        journal_lines.listing(entry)
        told.log_line(entry.record, JobId(1))
        again = journal.line(entry.record, wall=1.0, mono=1.0)
        back = journal.parse(again)
        assert back is not None
    fold.text()
    read = journal_lines.collect(lines)
    overview.build(read.entries)
    for entry in read.entries:
        if entry.record.incident:
            timeline.build(read.entries, entry.record.incident)


def keeper_packets(data: bytes) -> None:
    try:
        message = wire.decode(data)
    except WireError:
        return
    _answered(lambda: wire.encode(message))


def state_tables(data: bytes) -> None:
    """What a program has deposited of its arrays, as the next one reads it."""
    _answered(lambda: layout.parse(data))


def commit_records(data: bytes) -> None:
    """A page that the program may write: as it comes, and with a checksum that fits."""
    for slot in (data, _summed(data)):
        page = slot[: record.SLOT_BYTES].ljust(record.SIZE, b"\0")
        found = record.latest(page)
        if found is not None:
            _answered(lambda found=found: record.encode(found))  # type: ignore[misc]


def _summed(data: bytes) -> bytes:
    body = data[: record.MAX_VALUES]
    tail = struct.pack("<IQqB3x", len(body), 1, 1, record.HELD) + body
    return struct.pack("<I", zlib.crc32(tail)) + tail


def spill_files(data: bytes) -> None:
    """As it comes, and as the head of a file whose checksums fit."""
    start = spillfile._MAGIC + struct.pack("<II", len(data), zlib.crc32(data)) + data
    for whole in (data, start, start + struct.pack("<I", zlib.crc32(start))):
        (WORK / PLACE.name).write_bytes(whole)
        _answered(lambda: spillfile.read(PLACE))


def notes(data: bytes) -> None:
    """Lines of JSON in job directories, and the records of spills."""
    file = WORK / "notes"
    file.write_bytes(data)
    file.chmod(0o600)
    assert all(path.startswith("/") for path in leftover.noted(str(file)))
    for line in data.splitlines():
        identity._parse(line)
    spill_records._read(str(file))


def hook_requests(data: bytes) -> None:
    """What comes at the hook server's socket, in two pieces, with two descriptors as a caller sends them."""
    ours, theirs = socket.socketpair()
    before = os.listdir("/proc/self/fd")
    with ours, theirs:
        theirs.settimeout(0)
        cut = data[0] % len(data) if data else 0
        with suppress(BlockingIOError):  # more than a socket takes without a reader
            if data:
                socket.send_fds(theirs, [data[:cut] or data[:1]], [ours.fileno()] * (data[-1] % 4))
                theirs.sendall(data[cut:])
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(1)
        with suppress(OSError):
            asked, streams = hook_server._request(ours)
            for stream in streams:
                os.close(stream)
            assert len(asked) <= len(data)
            assert len(streams) <= 2
        assert os.listdir("/proc/self/fd") == before
