"""A journal's line as a record: a JSON object with `event` and `wall`. Pure.

A line is torn when its writer was killed or the disk was full; the one at the end may still be growing.
"""

import json
from typing import Any

Record = dict[str, Any]


def parse(line: str) -> Record | None:
    """One line as a record; None when it is not one."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return None
    wall = value.get("wall")
    return value if isinstance(wall, int | float) and not isinstance(wall, bool) else None
