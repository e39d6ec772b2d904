"""Device memory of kept arrays: spans of addresses with exportable memory behind them, a descriptor a part.

Relies on cuMemCreate memory living as long as a handle, mapping or descriptor of it does (cuda.h; hypotheses H1 and
H2 of docs/adr/0002), and on a range of addresses being used across the mappings in it, as torch's expandable segments
do. Memory is never given back before the process ends: the keeper and this process hold the same, and the last one to go
frees it.

A standby has stand-ins: one granule of device memory of its own (2 MiB), mapped again and again at the addresses of
`work`, and the addresses of `kept` with nothing behind them. So its program has its pointers, may launch kernels on
them and capture graphs, and reaches no byte of what another process works on. At the promotion the memory itself takes
their place: a mapping belongs to addresses, and what was captured names addresses.
"""

import ctypes
import os
from collections.abc import Sequence

from resilience.model.errors import GpuError
from resilience.state import layout
from resilience.state.driver import CudaGpu, GpuFault
from resilience.state.sums import DeviceSums

_FEW = 24
"""Parts of a span that grow it by a sixteenth at least; later ones by an eighth. So a span of 80 GiB has at most 110, and a
message to the keeper room for all."""
_WARM = 1 << 21
"""Bytes of each span that a standby reads once."""


class DeviceSpan:
    """`address` is fixed; memory is added behind it as arrays come. Everything is done on the session's stream."""

    def __init__(self, memory: "DeviceMemory", address: int, reserved: int) -> None:
        self._memory = memory
        self._gpu = memory.gpu
        self.address = address
        self._reserved = reserved
        self.parts: list[int] = []
        self.fds: list[int] = []

    @property
    def size(self) -> int:
        return sum(self.parts)

    @property
    def row(self) -> layout.Span:
        return layout.Span(address=self.address, parts=tuple(self.parts))

    def reach(self, size: int, *, ahead: bool) -> None:
        """Have zero-filled memory up to `size` bytes; `ahead`: some more, so that the parts stay few. Raises GpuError."""
        if size <= self.size:
            return None
        need = self._gpu.rounded(size - self.size)
        growth = self._gpu.rounded(self.size // (16 if len(self.parts) < _FEW else 8)) if ahead else 0
        if growth > need and self.size + growth <= self._reserved:
            try:
                return self._add(growth)
            except GpuFault:
                raise
            except GpuError:  # out of memory: what is needed may be there still
                pass
        return self._add(need)

    def _add(self, size: int) -> None:
        handle, fd = self._gpu.create(size)
        self._put(handle, size)
        self._gpu.open(self.address + self.size, size)
        self._gpu.zero(self.address + self.size, size)
        self.parts.append(size)
        self.fds.append(fd)

    def _put(self, handle: int, size: int, at: int | None = None) -> None:
        """Map a handle behind the memory that is there; mapping and descriptor keep the memory."""
        try:
            self._gpu.place(handle, self.address + (self.size if at is None else at), size)
        finally:
            self._gpu.release(handle)

    def take_in(self, parts: Sequence[int], fds: Sequence[int]) -> None:
        """The memory that another process made, behind these addresses."""
        at = 0
        for size, fd in zip(parts, fds, strict=True):
            self._put(self._gpu.take_in(fd), size, at)
            at += size
        self.parts, self.fds = list(parts), list(fds)
        self._gpu.open(self.address, at)

    def stand_in(self, granule: int, size: int) -> None:
        """The same granule again and again."""
        for address in range(self.address, self.address + size, self._gpu.granularity):
            self._gpu.place(granule, address, self._gpu.granularity)
        self._gpu.open(self.address, size)

    def clear(self, size: int) -> None:
        """Take the stand-ins away. Work that uses them must be done."""
        self._gpu.clear(self.address, size)

    def copy(self, source: "DeviceSpan", size: int) -> None:
        self._gpu.copy(self.address, source.address, size)

    def sum(self, at: int, size: int) -> int:
        """Of so many bytes, made on the device; what is no whole word at the end is summed here."""
        words = size // 8 * 8
        tail = int.from_bytes(self.read(at + words, size - words), "little")
        return (self._memory.sums.of(self.address + at, words) + tail) % (1 << 64)

    def protect(self) -> None:
        """Only reading is allowed from now on: a write is a GPU fault of its program."""
        self._gpu.open(self.address, self.size, write=False)

    def zero(self, at: int, size: int) -> None:
        if size:
            self._gpu.zero(self.address + at, size)

    def wipe(self) -> None:
        """Overwrite all of it, read-only or not. Does not wait."""
        self._gpu.open(self.address, self.size)
        self._gpu.zero(self.address, self.size)

    def write(self, at: int, content: bytearray) -> None:
        if content:
            host = (ctypes.c_char * len(content)).from_buffer(content)
            self._gpu.upload(self.address + at, ctypes.addressof(host), len(content))

    def read(self, at: int, size: int) -> bytearray:
        content = bytearray(size)
        if size:
            host = (ctypes.c_char * size).from_buffer(content)
            self._gpu.download(ctypes.addressof(host), self.address + at, size)
        return content


class DeviceMemory:
    """Makes the spans of one GPU."""

    def __init__(self, gpu: CudaGpu) -> None:
        self.gpu = gpu
        self._granule = 0
        self._sums: DeviceSums | None = None

    @property
    def sums(self) -> DeviceSums:
        """Made when they are first wanted."""
        self._sums = self._sums or DeviceSums(self.gpu)
        return self._sums

    def new(self) -> DeviceSpan:
        """Addresses for as much as the GPU has; they cost nothing."""
        size = self.gpu.rounded(self.gpu.total)
        return DeviceSpan(self, self.gpu.reserve(size), size)

    def take_in(self, row: layout.Span, fds: Sequence[int]) -> DeviceSpan:
        """The memory of another process, at its addresses where they are free here."""
        span = DeviceSpan(self, self.gpu.reserve(row.size, at=row.address), row.size)
        span.take_in(row.parts, fds)
        return span

    def stand_in(self, row: layout.Span, *, used: bool) -> DeviceSpan:
        """Addresses that another process has; `used`: with stand-ins behind them, else with nothing."""
        span = DeviceSpan(self, self.gpu.reserve(row.size, at=row.address), row.size)
        if used:
            first = not self._granule
            if first:
                self._granule, fd = self.gpu.create(self.gpu.granularity)
                os.close(fd)
            span.stand_in(self._granule, row.size)
            if first:
                self.gpu.zero(span.address, self.gpu.granularity)  # all of them at once: they are the same bytes
        return span

    def give_way(self) -> None:
        """The stand-ins have gone."""
        if self._granule:
            self.gpu.release(self._granule)
            self._granule = 0

    def warm(self, spans: Sequence[DeviceSpan], *, sums: bool) -> None:
        """Do once, to no effect, what a take-over does: first copies are slow, and code is loaded late."""
        for span in spans[:1] if sums else []:
            span.sum(0, _WARM)
        scratch = self.gpu.allocate(_WARM)
        for span in spans:
            self.gpu.copy(scratch, span.address, min(span._reserved, _WARM))
        self.gpu.synchronize_stream()
        self.gpu.free(scratch)

    def wait(self) -> None:
        """Wait for the copies."""
        self.gpu.synchronize_stream()
