"""The one reader of /proc/<pid>/stat (proc(5))."""

from dataclasses import dataclass

_LIMIT = 4096
"""Bytes: a command's name has 15 at most, each number 20."""
_GONE = "ZXx"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcStat:
    name: str
    """The command's name (comm), which its user chooses: blanks and parentheses may be in it."""
    state: str
    """One letter, e.g. `S`, or `T` and `t` while stopped."""
    parent: int
    starttime: int
    """Field 22: clock ticks since boot."""

    @property
    def gone(self) -> bool:
        """A zombie, or dead: it runs no more and holds nothing."""
        return self.state in _GONE


def proc_stat(pid: int, root: str = "/proc") -> ProcStat | None:
    """What the kernel says of a process; None when it is not there."""
    try:
        with open(f"{root}/{pid}/stat", "rb") as file:
            text = file.read(_LIMIT).decode("utf-8", "replace")
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if len(fields) < 20:
        return None
    return ProcStat(name=head.partition("(")[2], state=fields[0], parent=int(fields[1]), starttime=int(fields[19]))
