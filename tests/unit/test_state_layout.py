"""What kept state consists of: any arrays that a real program has, and a table that says where each lies."""

import json
import math
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.model.errors import StateError
from resilience.state import dtypes, layout, table
from resilience.state.areas import MappedArea
from resilience.state.layout import Layout, Placed, Span

MIB = 1 << 20


class Pages:
    """A span without memory that counts the whole pages which it would take."""

    def __init__(self) -> None:
        self.address, self.fds = MIB, list[int]()
        self.parts: list[int] = []

    @property
    def row(self) -> Span:
        return Span(address=self.address, parts=tuple(self.parts))

    def reach(self, size: int, *, ahead: bool) -> None:
        if size > sum(self.parts):
            self.parts.append(-(-(size - sum(self.parts)) // (2 * MIB)) * 2 * MIB)

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"nothing is done with it: {name}")


def laid_out(sizes: list[int]) -> Layout:
    memory: Any = SimpleNamespace(new=Pages, wait=lambda: None)
    area = MappedArea("device", "state", memory, [memory.new()])
    arrays = []
    for number, size in enumerate(sizes):
        spec = layout.spec(f"a{number}", size, "uint8")
        arrays.append(Placed(spec=spec, area=0, at=area.place(size)))
    area.close()
    return Layout(areas=(area.row,), arrays=tuple(arrays))


SIZES = st.lists(st.integers(0, 5000) | st.integers(0, 5 * MIB), min_size=1, max_size=40)


@given(SIZES)
def test_arrays_lie_side_by_side_and_never_in_each_other(sizes: list[int]) -> None:
    state = laid_out(sizes)
    (area,) = state.areas
    end = 0
    for array in state.arrays:
        assert end <= array.at < end + layout.ALIGNMENT
        assert array.at % layout.ALIGNMENT == 0
        end = array.at + array.spec.nbytes
    assert end == area.used
    assert all(area.used <= span.size < area.used + 2 * MIB + layout.ALIGNMENT for span in area.spans)
    assert layout.parse(layout.render(state)) == state


def test_small_arrays_share_pages() -> None:
    assert sum(laid_out([4096] * 120).sizes) == 4 * MIB


def test_a_model_of_many_tensors_has_a_table() -> None:
    state = laid_out([30_000] * 5000)
    text = layout.render(state)
    fd = table.make(text)
    assert layout.parse(table.read(fd)) == state


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["device", "state"]),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional={"format": st.just(2) | JSON, "areas": JSON, "arrays": JSON}) | JSON)
def test_any_text_is_a_layout_or_an_error(text: object) -> None:
    try:
        state = layout.parse(json.dumps(text).encode())
    except StateError:
        return
    assert all(a.at + a.spec.nbytes <= state.areas[a.area].used for a in state.arrays)


@given(SIZES, st.data())
def test_a_layout_with_a_changed_number_lets_no_array_out_of_its_memory(sizes: list[int], data: st.DataObject) -> None:
    words = layout.render(laid_out(sizes)).decode().replace("[", " [ ").replace(",", " , ").replace("]", " ] ").split()
    numbers = [n for n, word in enumerate(words) if word.isdigit()]
    words[data.draw(st.sampled_from(numbers))] = str(data.draw(st.integers(-9, 1 << 70)))
    try:
        state = layout.parse("".join(words).encode())
    except StateError:
        return
    for array in state.arrays:
        assert array.at + array.spec.nbytes <= min(span.size for span in state.areas[array.area].spans)


def test_a_table_of_another_version_is_refused() -> None:
    text = layout.render(laid_out([1])).replace(b'"format":3', b'"format":1')
    with pytest.raises(StateError, match="kept state: is of another version of mpsr: 1"):
        layout.parse(text)


def test_nobody_can_change_a_table() -> None:
    fd = table.make(b"{}")
    assert table.read(fd) == b"{}"
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"[]", 0)
    with pytest.raises(StateError, match="has no table"):
        table.read(os.memfd_create("not-sealed"))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "wrong"),
    [
        ("", 1, "float64", "printable"),
        ("u", (2, -1), "float64", "from 0 on"),
        ("u", "xy", "float64", "from 0 on"),
        ("u", 1.5, "float64", "from 0 on"),
        ("u", (2, True), "float64", "from 0 on"),
        ("u", None, "float64", "from 0 on"),
        ("u", (1 << 40, 1 << 20), "float64", "too large"),
        ("u", (1 << 40, 1 << 20, 0), "float64", "too large"),
        ("u", 1, "longdouble", "unknown type"),
        ("u", 1, object, "unknown type: object"),
        ("u", 1, "torch.qint8", r"unknown type: torch\.qint8"),
        ("u", 1, ">f8", "byte order of another machine"),
        ("u", 1, np.dtype(">i4"), "byte order of another machine"),
        ("u", 1, [("a", "f4")], "unknown type"),
    ],
)
def test_bad_arrays(name: str, shape: object, dtype: object, wrong: str) -> None:
    with pytest.raises(StateError, match=wrong):
        layout.spec(name, shape, dtype)


class Torchs:
    """As torch's types are: nothing but a text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


TYPES = [(name, kind) for name in dtypes.TYPES for kind in (name, f"torch.{name}", Torchs(f"torch.{name}"))] + [
    ("int64", int),
    ("float64", float),
    ("bool", bool),
    ("complex128", complex),
    ("float32", np.float32),
    ("float32", np.dtype("float32")),
    ("bool", np.bool_),
    ("float32", "f4"),
    ("int64", "<i8"),
    ("float64", "double"),
    ("float16", "half"),
]


@pytest.mark.parametrize(("name", "given"), TYPES, ids=range(len(TYPES)))
def test_types_of_every_library(name: str, given: object) -> None:
    spec = layout.spec("u", 3, given)
    assert (spec.dtype, spec.nbytes) == (name, 3 * dtypes.numpys(name).itemsize)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (4, (4,)),
        ([2, 3], (2, 3)),
        ((), ()),
        (0, (0,)),
        ((3, 0, 2), (3, 0, 2)),
        (np.int64(5), (5,)),
        ((np.int32(2), np.uint8(3)), (2, 3)),
        (np.array([2, 3]), (2, 3)),
    ],
)
def test_shapes_of_every_library(given: object, shape: tuple[int, ...]) -> None:
    spec = layout.spec("u", given, "float32")
    assert spec.shape == shape
    assert spec.nbytes == 4 * math.prod(shape)
    assert all(type(size) is int for size in spec.shape)
