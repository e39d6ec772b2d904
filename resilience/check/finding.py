"""What `mpsr check` found: one line each, worst last in meaning, in the order of looking."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from resilience.model.errors import ResilienceError
from resilience.parse.hostlist import folded


class Severity(StrEnum):
    FINE = "ok"
    NOTE = "note"
    """Good to know; nothing to do."""
    WARNING = "warning"
    """Jobs with --mps will not work here, or not well; may be right on a submit host."""
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    level: Severity
    subject: str
    text: str
    hint: str = ""
    nodes: str = ""
    """The nodes where it was found, as a list; empty for this one."""

    def lines(self) -> str:
        where = f"{self.nodes}: " if self.nodes else ""
        said = f"{self.level:<8}{where}{self.subject}: {self.text}"
        return f"{said}\n        {self.hint}" if self.hint else said


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a check found on one node, as its --json."""

    findings: tuple[Finding, ...]

    def count(self, level: Severity) -> int:
        return sum(finding.level is level for finding in self.findings)


def merged(found: Mapping[str, Findings]) -> Findings:
    """The findings of many nodes; what is the same on several is one finding that names them."""
    nodes: dict[Finding, list[str]] = {}
    for node, one in found.items():
        for finding in one.findings:
            nodes.setdefault(replace(finding, nodes=""), []).append(node)
    return Findings(findings=tuple(replace(same, nodes=folded(where)) for same, where in nodes.items()))


def fine(subject: str, text: str) -> Finding:
    return Finding(level=Severity.FINE, subject=subject, text=text)


def note(subject: str, text: str, hint: str = "") -> Finding:
    return Finding(level=Severity.NOTE, subject=subject, text=text, hint=hint)


def warning(subject: str, text: str, hint: str = "") -> Finding:
    return Finding(level=Severity.WARNING, subject=subject, text=text, hint=hint)


def wrong(subject: str, text: str, hint: str = "") -> Finding:
    return Finding(level=Severity.ERROR, subject=subject, text=text, hint=hint)


def raised(error: ResilienceError) -> Finding:
    """A ResilienceError as a finding, in its own words."""
    text = f"{error.wrong}: {error.observed}" if error.observed else error.wrong
    return wrong(error.subject, text, error.hint)
