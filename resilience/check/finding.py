"""What `mpsr check` found: one line each, worst last in meaning, in the order of looking."""

from dataclasses import dataclass
from enum import StrEnum

from resilience.model.errors import ResilienceError


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

    def lines(self) -> str:
        said = f"{self.level:<8}{self.subject}: {self.text}"
        return f"{said}\n        {self.hint}" if self.hint else said


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
