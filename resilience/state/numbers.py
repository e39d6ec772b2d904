"""Values of a commit as standard JSON: scalars of numpy and torch as the numbers they hold, NaN and the infinities by name.

JSON has no NaN, and a program whose loss is NaN must not fail in its commit for that. They are written
`{"$float": "nan"}`, `"inf"`, `"-inf"`. The keeper imports this: standard library only.
"""

import math
from typing import Any

_KEY = "$float"
_PLAIN = (str, int, bool, type(None))


def standard(value: Any) -> Any:
    """The value, of what JSON has. Raises TypeError or ValueError with what is wrong, RecursionError for a circle."""
    if isinstance(value, float):
        return value if math.isfinite(value) else {_KEY: repr(float(value))}
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [standard(one) for one in value]
    if isinstance(value, dict):
        if _KEY in value:
            raise ValueError(f"{_KEY} is no key for a value")
        strange = next((key for key in value if not isinstance(key, (float, *_PLAIN))), None)
        if strange is not None:
            raise TypeError(f"a key is a {type(strange).__name__}")
        return {key: standard(one) for key, one in value.items()}
    return standard(_scalar(value))


def _scalar(value: Any) -> Any:
    """A single item of an array library as Python's own."""
    item = getattr(value, "item", None)
    if not callable(item):
        raise TypeError(f"{type(value).__name__} is neither a number, a text, a list nor a dictionary of them")
    try:
        found = item()
    except Exception:  # each library has its own
        raise TypeError(f"{type(value).__name__} is no single number") from None
    if not isinstance(found, (float, *_PLAIN)):
        raise TypeError(f"{type(value).__name__} holds a {type(found).__name__}")
    return found


def restored(value: Any) -> Any:
    """The opposite of `standard`. Raises ValueError."""
    if isinstance(value, dict):
        return float(value[_KEY]) if value.keys() == {_KEY} else {key: restored(one) for key, one in value.items()}
    return [restored(one) for one in value] if isinstance(value, list) else value
