"""The types of arrays' items: their names, sizes, and what numpy, the CUDA array interface and DLPack call them.

Types are known by the names of numpy, ml_dtypes and torch, which agree. DLPack's codes are those of its header
(DLDataTypeCode). A type that a consumer has no name for is offered to it by no name, never by another type's.
"""

from typing import Any, NamedTuple


class ItemType(NamedTuple):
    nbytes: int
    kind: str
    """Letter of the array interface; empty where that has none."""
    dlpack: int
    bits: str = ""
    """The numpy type of the same size, where numpy has no such type by itself."""


TYPES = {
    "bool": ItemType(1, "b", 6),
    "int8": ItemType(1, "i", 0),
    "int16": ItemType(2, "i", 0),
    "int32": ItemType(4, "i", 0),
    "int64": ItemType(8, "i", 0),
    "uint8": ItemType(1, "u", 1),
    "uint16": ItemType(2, "u", 1),
    "uint32": ItemType(4, "u", 1),
    "uint64": ItemType(8, "u", 1),
    "float16": ItemType(2, "f", 2),
    "float32": ItemType(4, "f", 2),
    "float64": ItemType(8, "f", 2),
    "complex64": ItemType(8, "c", 5),
    "complex128": ItemType(16, "c", 5),
    "bfloat16": ItemType(2, "", 4, "uint16"),
    "float8_e4m3fn": ItemType(1, "", 10, "uint8"),
    "float8_e4m3fnuz": ItemType(1, "", 11, "uint8"),
    "float8_e5m2": ItemType(1, "", 12, "uint8"),
    "float8_e5m2fnuz": ItemType(1, "", 13, "uint8"),
    "float8_e8m0fnu": ItemType(1, "", 14, "uint8"),
}
_PYTHONS = {"bool": "bool", "bool_": "bool", "int": "int64", "float": "float64", "complex": "complex128"}
"""Python's own types, as numpy reads them."""


def name_of(dtype: object) -> str:
    """The name of a type that is given as a name or as Python's, numpy's, ml_dtypes' or torch's own type.

    Raises ValueError with what is wrong.
    """
    if getattr(dtype, "isnative", True) is False:
        raise ValueError(f"{dtype} has the byte order of another machine")
    text = dtype if isinstance(dtype, str) else str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype))
    text = text.removeprefix("torch.")
    text = _PYTHONS.get(text, text)
    return text if text in TYPES else _by_numpy(dtype)


def _by_numpy(dtype: object) -> str:
    """The names that only numpy knows: `f4`, `<i8`, `double`, numpy's aliases."""
    try:
        import numpy as np

        found = np.dtype(dtype)  # type: ignore[call-overload]
    except (ImportError, TypeError, ValueError, SyntaxError):  # numpy evaluates lists such as `f4, (2,)`
        raise ValueError(str(dtype)) from None
    if not found.isnative:
        raise ValueError(f"{found} has the byte order of another machine")
    if found.name not in TYPES:
        raise ValueError(str(found.name))
    return str(found.name)


def numpys(name: str) -> Any:
    """The numpy type of an array on the host: ml_dtypes' own where that is installed, else the type of its bits."""
    import numpy as np

    kind = TYPES[name]
    if not kind.bits:
        return np.dtype(name)
    try:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError):
        return np.dtype(kind.bits)
