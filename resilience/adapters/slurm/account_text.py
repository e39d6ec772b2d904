"""Our words in a job's AdminComment, and the words of others beside them. Pure.

A site writes there as well (job_submit, admins). Ours begins with `mpsr: ` and ends with the incident's id, `(incident
6b0dacf8-1)`; whatever stands before or behind stays as it is, and only what we have said before is replaced.
"""

import re

_MOST = 1024
"""Characters of ours. Slurm takes more, but the comment goes through every squeue and into the accounting."""
_OURS = re.compile(r"mpsr: (?:(?!mpsr: ).)*?\(incident [0-9a-z-]{1,40}\)", re.DOTALL)
_END = re.compile(r" ?\(incident [0-9a-z-]{1,40}\)\Z")
_BETWEEN = " | "


def one_line(text: str) -> str:
    """A comment or a reason as Slurm may show it: one line, bounded. What it ends with to be known by is kept."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    end = _END.search(line)
    if len(line) <= _MOST or end is None:
        return line[:_MOST]
    return line[: _MOST - len(end[0])] + end[0]


def beside(there: str, ours: str) -> str:
    """What is to stand there: ours in the place of our last word, or behind the words of others."""
    ours = one_line(ours)
    said = list(_OURS.finditer(there))
    if said:
        return there[: said[-1].start()] + ours + there[said[-1].end() :]
    if not there.strip() or there.startswith("mpsr: "):  # of a release of ours that did not mark its end
        return ours
    return f"{there}{_BETWEEN}{ours}"
