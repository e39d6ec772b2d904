"""What one scenario of the demo came to: the figures that go into build/demo.json and whether its promise held."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Result:
    """A figure is None where the scenario has nothing to say about it. `broken` is empty when all held."""

    name: str
    gpu: str
    """"simulated" or the model."""
    bystanders: int = 0
    bystanders_lost: int = 0
    """Bystanders that did not complete, or whose job Slurm started again."""
    requeues: int = 0
    bit_identical: bool | None = None
    """Every result has the same bytes as that of an undisturbed run."""
    recovery_ms: list[float] = field(default_factory=list)
    """Fault to first step after it, of each bystander."""
    culprit_named: bool | None = None
    residue: list[str] = field(default_factory=list)
    """What was left after the epilog."""
    seconds: float = 0.0
    seen: dict[str, Any] = field(default_factory=dict)
    """What else was measured, by name."""
    broken: list[str] = field(default_factory=list)

    def require(self, holds: bool, promise: str) -> None:
        """Note a promise that was not kept."""
        if not holds:
            self.broken.append(promise)

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["name"]
        return values | {"held": not self.broken}


def account(results: list[Result]) -> str:
    """The table at the end: one row for each scenario, then what did not hold."""
    head = ("scenario", "bystanders", "lost", "requeues", "same bytes", "back in ms", "culprit", "left", "held")
    rows = [head, *(row(result) for result in results)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(head))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [f"BROKEN {result.name}: {promise}" for result in results for promise in result.broken]
    return "\n".join(lines)


def row(result: Result) -> tuple[str, ...]:
    def word(value: bool | None, yes: str, no: str) -> str:
        return "-" if value is None else yes if value else no

    times = sorted(result.recovery_ms)
    back = "-" if not times else f"{times[0]:.0f}" if len(times) == 1 else f"{times[0]:.0f} to {times[-1]:.0f}"
    return (
        result.name,
        str(result.bystanders) if result.bystanders else "-",
        str(result.bystanders_lost) if result.bystanders else "-",
        str(result.requeues),
        word(result.bit_identical, "yes", "NO"),
        back,
        word(result.culprit_named, "named", "NOT NAMED"),
        str(len(result.residue)) if result.residue else "nothing",
        "no" if result.broken else "yes",
    )
