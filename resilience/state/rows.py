"""The committed lengths of arrays that are appended to."""

import operator
from collections.abc import Iterable, Mapping

from resilience.model.errors import StateError
from resilience.state.layout import APPEND, ArraySpec


def filled(declared: Iterable[ArraySpec], given: Mapping[str, object]) -> dict[str, int]:
    """The length of each such array, as Python's own number. Raises StateError for what is no length or no such array."""
    room = {spec.name: spec.shape[0] for spec in declared if spec.kind == APPEND}
    if unknown := given.keys() - room.keys():
        hint = f"arrays with append=True: {', '.join(room) or 'none'}"
        raise StateError("filled", "names no array that is appended to", min(map(str, unknown)), hint=hint)
    return {name: _length(name, given[name], most) for name, most in room.items()}


def _length(name: str, value: object, most: int) -> int:
    try:
        length = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        length = -1
    if not 0 <= length <= most or isinstance(value, bool):
        raise StateError(f"array {name}", f"filled is no number of rows from 0 to {most}", repr(value)[:80])
    return length
