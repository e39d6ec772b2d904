"""The text of `scontrol show job`, for tests that look at jobs of well-behaved users: texts of others can be lines of it."""

import re

_FIELD = re.compile(r"(\S+?)=(\S*)")
_FREE = re.compile(
    r"(?:^|\s)(JobName|SubmitLine|WorkDir|StdOut|StdErr|StdIn|Command|Comment|AdminComment|SystemComment|Extra)=(.*)"
)
"""Fields with a text of the user's, which may have blanks. Each is the last of its line. SubmitLine: seen in 26.05."""


def parse_record(text: str) -> dict[str, str]:
    """The fields of one job. A field's first appearance counts."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        free = _FREE.search(line)
        if free:
            fields.setdefault(free[1], free[2].rstrip())
        for name, value in _FIELD.findall(line[: free.start()] if free else line):
            fields.setdefault(name, value)
    return fields
