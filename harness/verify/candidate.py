"""A record that is checked, and what was found about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.record import Record

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (error: the record fails) or that a reader should know (warning)."""

    severity: Severity
    check: str  # which check found it: file, schema, key, data, settings, environment, figures, copies, plausible, run again
    message: str


def error(check: str, message: str) -> Finding:
    """Return a finding that fails the record."""
    return Finding("error", check, message)


def warning(check: str, message: str) -> Finding:
    """Return a finding that does not."""
    return Finding("warning", check, message)


@dataclass
class Candidate:
    """A file that claims to be a record. ``record`` and ``raw`` (its JSON) are None if it cannot be read."""

    path: Path
    sha256: str = ""
    record: Record | None = None
    raw: dict[str, Any] | None = None
    findings: list[Finding] = field(default_factory=list)
    rerun: bool = False  # it was run again here, and agreed

    @property
    def failed(self) -> bool:
        """Return whether an error was found."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def name(self) -> str:
        """Return what to call it: method, task and seed, and the file; the file alone if it cannot be read."""
        if self.record is None:
            return self.path.name
        return f"{self.record.label} on {self.record.spec.task}, seed {self.record.spec.seed} ({self.path.stem[:8]})"
