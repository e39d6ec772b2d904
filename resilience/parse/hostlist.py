"""Slurm's lists of hosts and files: one word with a bracket of ranges stands for several. Pure."""

from collections.abc import Iterator

from resilience.model.errors import ConfigError

MOST = 100_000
"""Words that one list may stand for."""


def expand(text: str, where: str) -> Iterator[str]:
    """The words behind one word with at most one bracket: n[08-10] is n08 n09 n10. Raises ConfigError."""
    head, bracket, rest = text.partition("[")
    if not bracket:
        yield text
        return
    inside, _, tail = rest.partition("]")
    for item in inside.split(","):
        low, dash, high = item.partition("-")
        if not item.isascii() or not low.isdigit() or (dash and not high.isdigit()) or len(item) > 20:
            raise ConfigError(where, "has a bracket that is no range", text[:80])
        last = int(high) if dash else int(low)
        if last < int(low) or last - int(low) >= MOST:
            raise ConfigError(where, "has a range that runs the wrong way or too far", text[:80])
        for number in range(int(low), last + 1):
            yield f"{head}{number:0{len(low)}d}{tail}"
