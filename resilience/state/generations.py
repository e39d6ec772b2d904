"""The spills of a rank of a group: a file for each of its last commits that are on disk.

Ranks write the same commits, but none knows when another's file is whole, and a node may die in between. So each keeps
the last commit that all ranks have whole on disk beside the one that is written now. Before a requeue the spiller adds
what the rank stands at: at PREPARED n both n and n-1. After it all ranks have one commit in common.
"""

import contextlib
import os
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace

from resilience.model.errors import StateError
from resilience.state import spillfile
from resilience.state.agreement import Offer
from resilience.state.spillfile import SpilledState, SpillPlace, own_directory


def heads(where: SpillPlace) -> Iterator[SpilledState]:
    """What may be gone on from, without its content. Leftovers of another job are removed; what is damaged is told and left.

    Raises ForeignDirectory.
    """
    if spillfile.marked(where):
        return
    for sequence in _sequences(where):
        at = replace(where, sequence=sequence)
        try:
            head = spillfile.read(at, content=False)
        except StateError as error:
            print(error.lines(), file=sys.stderr, flush=True)
            continue
        if head and head.sequence == sequence and spillfile.ours(where, head):
            yield head
        elif head:
            spillfile.remove(at)


def offers(where: SpillPlace) -> list[Offer]:
    return [Offer(head.sequence, head.step, head.group, head.committed) for head in heads(where)]


def keep(where: SpillPlace, sequences: Collection[int | None]) -> None:
    """Take away all others."""
    for sequence in _sequences(where):
        if sequence not in sequences:
            spillfile.remove(replace(where, sequence=sequence))


def _sequences(where: SpillPlace) -> list[int]:
    """Of the files that are there, the latest first. Raises ForeignDirectory."""
    named = re.compile(rf"{re.escape(where.name)}\.(\d{{1,19}})\Z", re.ASCII)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), own_directory(where.directory) as directory:
        return sorted((int(match[1]) for name in os.listdir(directory) if (match := named.match(name))), reverse=True)
    return []
