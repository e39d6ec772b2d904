"""What kept state consists of: the arrays by name, shape and type, and the regions of device memory that hold them.

The text forms (in a deposit at the keeper, in the head of a spill file) are read back with every field checked; what
does not fit raises StateError naming the array. Sizes are bytes.
"""

import math
from dataclasses import dataclass
from typing import Any

from resilience.model.errors import StateError
from resilience.state.names import MAX_FDS

ITEM_BYTES = {
    "float16": ("f", 2),
    "float32": ("f", 4),
    "float64": ("f", 8),
    "complex64": ("c", 8),
    "complex128": ("c", 16),
    "int8": ("i", 1),
    "int16": ("i", 2),
    "int32": ("i", 4),
    "int64": ("i", 8),
    "uint8": ("u", 1),
    "uint16": ("u", 2),
    "uint32": ("u", 4),
    "uint64": ("u", 8),
    "bool": ("b", 1),
}
"""Type name → (kind letter of the array interface, bytes of one item)."""
MAX_ARRAYS = (MAX_FDS - 1) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype][1]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An array with the size of each of its two regions and the addresses at which its program has them."""

    spec: ArraySpec
    region: int
    work: int
    kept: int


def spec(name: object, shape: object, dtype: object) -> ArraySpec:
    """A checked description of an array; `dtype` may be a name or anything whose `str()` or `.name` is one."""
    if not isinstance(name, str) or not name or len(name) > 64 or not name.isprintable():
        raise StateError("array", "a name is 1 to 64 printable characters", repr(name)[:80])
    text = dtype if isinstance(dtype, str) else str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype))
    if text not in ITEM_BYTES:
        raise StateError(f"array {name}", "unknown type", text, hint=f"known: {', '.join(ITEM_BYTES)}")
    sizes = (shape,) if isinstance(shape, int) else shape
    if not isinstance(sizes, tuple | list) or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise StateError(f"array {name}", "a shape is whole numbers above 0", repr(shape)[:80])
    if len(sizes) > 32 or math.prod(sizes) >= 1 << 48:
        raise StateError(f"array {name}", "shape is too large", repr(shape)[:80])
    return ArraySpec(name=name, shape=tuple(int(size) for size in sizes), dtype=text)


def render(arrays: list[Kept], name: str = "") -> dict[str, Any]:
    """The layout as it goes to the keeper: regions in the order of the descriptors (work, kept, work, kept, …).

    `name`: whose it is (resilience/state/identity.py).
    """
    rows = [[a.spec.name, list(a.spec.shape), a.spec.dtype, a.region, a.work, a.kept] for a in arrays]
    return {"name": name, "regions": [a.region for a in arrays for _ in range(2)], "arrays": rows}


def parse(layout: dict[str, Any]) -> list[Kept]:
    """The arrays of a layout from the keeper. Raises StateError."""
    rows = layout.get("arrays")
    if not isinstance(rows, list) or len(rows) > MAX_ARRAYS:
        raise StateError("kept state", "layout has no list of arrays", repr(rows)[:80])
    arrays = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 6 or not all(isinstance(number, int) for number in row[3:]):
            raise StateError("kept state", "layout has a bad row", repr(row)[:80])
        array = Kept(spec=spec(*row[:3]), region=row[3], work=row[4], kept=row[5])
        if array.region < array.spec.nbytes:
            raise StateError(f"array {array.spec.name}", "region is smaller than the array", array.region)
        arrays.append(array)
    if layout.get("regions") != [a.region for a in arrays for _ in range(2)]:
        raise StateError("kept state", "regions do not fit the arrays", repr(layout.get("regions"))[:80])
    if len({a.spec.name for a in arrays}) != len(arrays):
        raise StateError("kept state", "layout names an array twice")
    return arrays


def check_same(declared: ArraySpec, held: ArraySpec | None, where: str) -> None:
    """Raises StateError when what a program declares is not what is held."""
    if held != declared:
        raise StateError(
            f"array {declared.name}",
            f"does not fit the state {where}: declared {declared}, there",
            held or "no such array",
            hint="a program that goes on from a commit must declare the same arrays as the one that made it",
        )
