"""What kept state consists of: arrays by name, shape and type, the areas that they lie in, and the memory of those.

An area holds arrays side by side, so that small ones share pages. It has one span of addresses, or two (`work`, `kept`),
and each span has memory behind it in parts, one descriptor each, in the order of the addresses.

The text forms (the table of a deposit, the head of a spill file) are read back with every field checked; what does not
fit raises StateError naming the array. Sizes are bytes.
"""

import json
import math
import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from resilience.model.errors import StateError
from resilience.state import dtypes
from resilience.state.names import STATE_VERSION

ALIGNMENT = 512
"""Of an array in its area: what the allocators of torch and cupy give."""
_MAX_SIZE = 1 << 48
_MAX_ARRAYS = 1 << 16
_MAX_GPUS = 64
_ON_GPU = re.compile(r"device(?::([1-9]|[1-5]\d|6[0-3]))?", re.ASCII)
DEVICE, HOST = "device", "host"
"""Where an area is: `device` is the process's first GPU, `device:2` its third."""
STATE, CONSTANT, APPEND = "state", "constant", "append"
SPANS = {STATE: 2, CONSTANT: 1, APPEND: 1}
"""Kind of an area → its spans."""
BYTES = "bytes"
"""The type of what `session.host` keeps: its length, then as many bytes, then room."""
BYTES_HEAD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    name: str
    shape: tuple[int, ...]
    dtype: str
    where: str = DEVICE
    kind: str = STATE

    @property
    def nbytes(self) -> int:
        if self.dtype == BYTES:
            return BYTES_HEAD + self.shape[0]
        return math.prod(self.shape) * dtypes.TYPES[self.dtype].nbytes

    def stored(self, filled: int) -> int:
        """Bytes of it that a commit with that length has."""
        return filled * (self.nbytes // max(self.shape[0], 1)) if self.kind == APPEND else self.nbytes

    def __str__(self) -> str:
        said = f"{self.name} {self.dtype}{list(self.shape)}"
        said += f" {self.kind}" if self.kind != STATE else ""
        if self.where == DEVICE:
            return said
        return said + (" on the host" if self.where == HOST else f" on GPU {ordinal(self.where)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of addresses and the sizes of the memory behind it, in parts."""

    address: int
    parts: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """`where` its memory is, of which `kind` its arrays are, how much of it they use, and its spans: work, then kept."""

    where: str
    kind: str
    used: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An array, the number of its area, and where in it the array begins."""

    spec: ArraySpec
    area: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    areas: tuple[Area, ...]
    arrays: tuple[Placed, ...]

    @property
    def sizes(self) -> list[int]:
        """Of the memory of each descriptor, in order: areas, their spans, their parts."""
        return [size for area in self.areas for span in area.spans for size in span.parts]

    @property
    def appended(self) -> list[ArraySpec]:
        """Those with a committed length, in the order of the record."""
        return [array.spec for array in self.arrays if array.spec.kind == APPEND]

    def spec(self, name: str) -> ArraySpec | None:
        return next((array.spec for array in self.arrays if array.spec.name == name), None)


def aligned(size: int) -> int:
    """The next place for an array."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def on_gpu(number: object) -> str:
    """Where an array of the process's n-th GPU is. Raises StateError."""
    if type(number) is not int or not 0 <= number < _MAX_GPUS:
        raise StateError("device", "is not a whole number from 0 on", repr(number)[:80])
    return f"{DEVICE}:{number}" if number else DEVICE


def ordinal(where: object) -> int | None:
    """The GPU's number among those that the process sees; None for what is on none."""
    if not isinstance(where, str) or not (found := _ON_GPU.fullmatch(where)):
        return None
    return int(found[1] or 0)


def spec(name: object, shape: object, dtype: object, where: object = DEVICE, kind: object = STATE) -> ArraySpec:
    """A checked description of an array. Raises StateError.

    shape: a whole number or several, of Python or numpy; () for a single item, 0 for none.
    dtype: a name, or a type of Python, numpy, ml_dtypes or torch.
    where: device, device:1 and so on, or host.
    kind: state, constant or append.
    """
    named = _named(name)
    if where != HOST and ordinal(where) is None:
        raise StateError(f"array {named}", "is neither on the device nor on the host", repr(where)[:80])
    if kind not in SPANS:
        raise StateError(f"array {named}", "is of no kind that is kept", repr(kind)[:80])
    try:
        item = dtypes.name_of(dtype)
    except ValueError as error:
        known = f"known: {', '.join(dtypes.TYPES)}; keep other data as bytes"
        raise StateError(f"array {name}", "unknown type", error, hint=known) from None
    sizes = _sizes(shape)
    if sizes is None or any(size < 0 for size in sizes):
        raise StateError(f"array {name}", "a shape is whole numbers from 0 on", repr(shape)[:80])
    if len(sizes) > 32 or math.prod(max(size, 1) for size in sizes) * dtypes.TYPES[item].nbytes >= _MAX_SIZE:
        raise StateError(f"array {name}", "shape is too large", repr(shape)[:80])
    if kind == APPEND and not sizes:
        raise StateError(f"array {named}", "a single item cannot be appended to", repr(shape)[:80])
    return ArraySpec(name=named, shape=sizes, dtype=item, where=str(where), kind=str(kind))


def bytes_spec(name: object, nbytes: object) -> ArraySpec:
    """A checked description of bytes with room for so many. Raises StateError."""
    named = _named(name)
    sizes = _sizes(nbytes)
    if sizes is None or len(sizes) != 1 or not 0 < sizes[0] < _MAX_SIZE:
        raise StateError(f"bytes {named}", "nbytes is not a whole number above 0", repr(nbytes)[:80])
    return ArraySpec(name=named, shape=sizes, dtype=BYTES, where=HOST)


def _named(name: object) -> str:
    if not isinstance(name, str) or not name or len(name) > 64 or not name.isprintable():
        raise StateError("array", "a name is 1 to 64 printable characters", repr(name)[:80])
    return name


def read_spec(row: list[Any], where: str, kind: str) -> ArraySpec:
    """The description in a table or a spill file: name, shape, type. Raises StateError."""
    name, shape, dtype = row
    if dtype == BYTES and (where, kind) == (HOST, STATE):
        return bytes_spec(name, *shape)
    return spec(name, shape, dtype, where, kind)


def _sizes(shape: Any) -> tuple[int, ...] | None:
    """Whole numbers of any library as Python's; None for what is no shape."""
    try:
        given = tuple(shape) if isinstance(shape, Iterable) else (shape,)
        return None if any(isinstance(size, bool) for size in given) else tuple(map(operator.index, given))
    except TypeError:
        return None


def render(layout: Layout) -> bytes:
    """The table of a deposit."""
    areas = [[a.where, a.kind, a.used, [[span.address, list(span.parts)] for span in a.spans]] for a in layout.areas]
    arrays = [[a.spec.name, list(a.spec.shape), a.spec.dtype, a.area, a.at] for a in layout.arrays]
    return json.dumps({"format": STATE_VERSION, "areas": areas, "arrays": arrays}, separators=(",", ":")).encode(
        "ascii"
    )


def parse(text: bytes) -> Layout:
    """The layout of a table. Raises StateError."""
    try:
        table = json.loads(text)
        if table["format"] != STATE_VERSION:
            hint = "end the job's programs, or use the version of mpsr that they use"
            raise StateError("kept state", "is of another version of mpsr", table["format"], hint=hint)
        areas = tuple(_area(*row) for row in table["areas"])
        rows = table["arrays"]
        if len(rows) > _MAX_ARRAYS:
            raise ValueError(f"{len(rows)} arrays")
        numbers = [(_number(row[3]), _number(row[4])) for row in rows]
        there = [(row[:3], areas[area]) for row, (area, _) in zip(rows, numbers, strict=True)]
        specs = [read_spec(row, area.where, area.kind) for row, area in there]
        arrays = tuple(Placed(spec=s, area=area, at=at) for s, (area, at) in zip(specs, numbers, strict=True))
        for array in arrays:
            if array.at + array.spec.nbytes > areas[array.area].used:
                raise ValueError(f"array {array.spec.name} does not fit its area")
        if len({array.spec.name for array in arrays}) != len(arrays):
            raise ValueError("an array is named twice")
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise StateError("kept state", "its table cannot be read", repr(error)[:120]) from None
    return Layout(areas=areas, arrays=arrays)


def _area(where: object, kind: object, used: object, spans: list[Any]) -> Area:
    made = tuple(Span(address=_number(address), parts=tuple(map(_number, parts))) for address, parts in spans)
    if (where != HOST and ordinal(where) is None) or not isinstance(kind, str) or len(made) != SPANS.get(kind):
        raise ValueError(f"area {where!r} {kind!r} with {len(made)} spans")
    size = _number(used)
    if any(span.size < size for span in made):
        raise ValueError(f"area {where} {kind} is smaller than its arrays")
    return Area(where=str(where), kind=kind, used=size, spans=made)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"no number of bytes: {value!r}")
    return value


def check_same(declared: ArraySpec, held: ArraySpec | None, where: str) -> None:
    """Raises StateError when what a program declares is not what is held."""
    if held != declared:
        raise StateError(
            f"array {declared.name}",
            f"does not fit the state {where}: declared {declared}, there",
            held or "no such array",
            hint="a program that goes on from a commit must declare the same arrays as the one that made it",
        )
