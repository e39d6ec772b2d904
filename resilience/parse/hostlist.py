"""Slurm's lists of hosts, device files and numbers: `rack[0-3]_blade[00-15],login`, `0-2,7`. Pure.

Relies on ClusterShell for what a range stands for. Slurm's own rules come on top: the order of the list is kept, a name
may stand twice, and the width of a range's first number holds (`n[08-100]` is n08 … n99, n100; seen with 22.05's
`scontrol show hostnames`). That is why each bracket is a RangeSet: a NodeSet sorts, folds what stands twice, and refuses
`n[08-100]` and `n[1-2][3-4]`.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice, product

from resilience.model.errors import ConfigError

MOST = 100_000
"""Words that one list may stand for."""
_RANGE = r"\d{1,9}(?:-\d{1,9})?"
_BRACKET = re.compile(rf"\[({_RANGE}(?:,{_RANGE})*)\]", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9._+:/{}-]*\Z")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_HINT = "such as gpu[01-16], rack[0-3]_blade[0-15] or /dev/nvidia[0-3]"
_COMMA = re.compile(r",(?![^\[]*\])")


def expand(text: str, where: str) -> list[str]:
    """The words behind a list, in its order. Raises ConfigError that names `where`."""
    words = list(islice(_words(text, where), MOST + 1))
    if len(words) > MOST:
        raise ConfigError(where, f"names more than {MOST}", text[:80])
    return words


def nodes(text: str, where: str) -> list[str]:
    """The nodes behind a list such as gpu[01-16,20],rack[0-3]_blade[0-15], each once. Raises ConfigError."""
    found = expand(text, where)
    if wrong := next((name for name in found if not _NODE.match(name)), None):
        raise ConfigError(where, "is not a node's name", wrong[:80], hint="such as gpu[01-16]")
    if len(set(found)) != len(found):
        raise ConfigError(where, "names a node twice", text[:80])
    return found


def folded(names: Iterable[str]) -> str:
    """Names of nodes as one list: gpu01, gpu02 as gpu[01-02]."""
    from ClusterShell.NodeSet import NodeSet

    return str(NodeSet.fromlist(names))


def named(word: str, text: str) -> bool:
    """Whether a list of Slurm's own names this word; a list that cannot be read names nothing."""
    try:
        return bool(text) and word in expand(text, "list")
    except ConfigError:
        return False


def numbers(text: str) -> tuple[str, ...]:
    """`0-2,07` as 0, 1, 2, 7: what is no number or range in it is left out, and so is what stands twice."""
    found: list[str] = []
    for word in map(str.strip, text.split(",")):
        if re.fullmatch(r"\d{1,4}(?:-\d{1,4})?", word, re.ASCII):
            low, dash, high = word.partition("-")
            if not dash or int(low) <= int(high):
                found += [str(int(number)) for number in _range(word)]
    return tuple(dict.fromkeys(found))


def _words(text: str, where: str) -> Iterator[str]:
    for term in _COMMA.split(text):
        parts = _BRACKET.split(term)
        if not term or not all(map(_PLAIN.match, parts[::2])):
            raise ConfigError(where, "has a bracket that is no range, or a stray character", text[:80], hint=_HINT)
        brackets = [_strings(inside, where, text) for inside in parts[1::2]]
        for chosen in product(*brackets):
            yield "".join(plain + number for plain, number in zip(parts[::2], (*chosen, ""), strict=True))


def _strings(inside: str, where: str, text: str) -> list[str]:
    """The numbers of one bracket, in its order, with their zeros."""
    found: list[str] = []
    for item in inside.split(","):
        low, dash, high = item.partition("-")
        if dash and not 0 <= int(high) - int(low) < MOST:  # RangeSet would hold the whole of it
            raise ConfigError(where, "has a range that runs the wrong way or too far", text[:80])
        found += _range(item)
    return found


def _range(item: str) -> list[str]:
    """The numbers of one range that runs the right way, or the one number."""
    low, dash, high = item.partition("-")
    if not dash:
        return [item]
    from ClusterShell.RangeSet import RangeSet  # late: prologs and the agent seldom meet a range

    high = str(int(high)).zfill(len(low))
    if low.startswith("0") and len(high) > len(low):  # ClusterShell wants both ends of one width
        return list(RangeSet(f"{low}-{'9' * len(low)},{10 ** len(low)}-{high}"))
    return list(RangeSet(f"{low}-{high}"))
