"""The outcome of a comparison as a table for a terminal, as Markdown for a job summary, and as JSON.

The JSON document (``schema_version`` 1)::

    {"schema_version": 1, "verdict": "regression" | "no regression" | "not measured", "exit_status": 1 | 0 | 2, "reason": null | "...",
     "base": {...}, "head": {...}, "settings": {...}, "notes": [...], "seconds": 93.1,
     "findings": [{"case", "metric", "kind", "status", "failing", "base", "head", "unit", "direction", "threshold", "change", "interval",
                   "p", "delta", "n", "note"}, ...]}

Fields of a finding are those of ``harness.regress.finding.Finding``; numbers that are not finite are null.
"""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from harness.metrics import MISSING, format_value
from harness.regress.finding import Finding, Outcome
from harness.regress.settings import METRICS, OWN, TIMES, metric_of

SCHEMA_VERSION = 1
HEADS = ("case", "metric", "base", "head", "change", "allowed", "p", "status")
ORDER = ("failed", "worse", "slower", "changed", "unmeasured", "unconfirmed", "better", "faster", "new", "same")
VERDICTS = {0: "no regression", 1: "regression", 2: "not measured"}


def document(outcome: Outcome | None, reason: str | None = None) -> str:
    """Return the JSON text of an outcome, or of a comparison that could not be made and why."""
    if outcome is None:
        found: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "verdict": VERDICTS[2],
            "exit_status": 2,
            "reason": reason,
            "findings": [],
        }
        return json.dumps(found, indent=1) + "\n"
    failing = outcome.failing()
    findings = [{**asdict(each), "failing": any(each is other for other in failing)} for each in outcome.findings]
    return (
        json.dumps(
            _finite(
                {
                    "schema_version": SCHEMA_VERSION,
                    "verdict": VERDICTS[outcome.exit_status],
                    "exit_status": outcome.exit_status,
                    "reason": reason,
                    "base": outcome.base,
                    "head": outcome.head,
                    "settings": outcome.settings,
                    "notes": outcome.notes,
                    "seconds": round(outcome.seconds, 1),
                    "findings": findings,
                }
            ),
            indent=1,
        )
        + "\n"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _value(finding: Finding, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return str(value or MISSING)
    if finding.metric not in (*METRICS, *TIMES, *OWN):
        return f"{value:.6g}"
    if finding.unit in ("", "B"):  # to the last digit: a byte more is a difference
        return f"{value:,.10g}" if abs(value) < 1e15 else f"{value:.6g}"
    if finding.unit == "fraction":
        return f"{100 * value:.6g} %"
    return format_value(metric_of(finding.metric), value)


def _change(finding: Finding, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return MISSING if value is None or math.isnan(value) else "from 0"
    if finding.unit == "fraction":
        return f"{100 * value:+.3g} points"
    return "0" if value == 0 else f"{100 * value:+.3g} %"


def _row(finding: Finding) -> list[str]:
    allowed = MISSING if finding.threshold is None else f"{100 * finding.threshold:.2g} {'points' if finding.unit == 'fraction' else '%'}"
    moved = _change(finding, finding.change)
    if finding.interval is not None:
        moved += f" ({100 * finding.interval[0]:+.1f} to {100 * finding.interval[1]:+.1f})"
    p = MISSING if finding.p is None else "<0.0001" if finding.p < 1e-4 else f"{finding.p:.2g}"
    note = f" ({finding.note})" if finding.note else ""
    figures = [_value(finding, finding.base), _value(finding, finding.head)]
    return [finding.case, finding.metric, *figures, moved, allowed, p, finding.status + note]


def rows(outcome: Outcome) -> list[list[str]]:
    """Return the rows that are shown: all that was timed or tested, and of what was compared exactly whatever differs."""
    shown = [each for each in outcome.findings if each.kind != "exact" or each.status != "same" or each.change]
    shown.sort(key=lambda each: (ORDER.index(each.status), each.kind != "exact"))
    return [_row(each) for each in shown]


def verdict(outcome: Outcome) -> str:
    """Return the last line: what was found, in one sentence."""
    failing = outcome.failing()
    compared = len(outcome.findings)
    if failing:
        counts = {status: sum(each.status == status for each in failing) for status in ORDER}
        return f"Regression: {', '.join(f'{count} {status}' for status, count in counts.items() if count)} of {compared} comparisons."
    if outcome.exit_status == 2:
        lacking = [each for each in outcome.findings if each.status in ("unmeasured", "new")]
        return (
            f"Not measured: {len(lacking)} of {compared} comparisons ({lacking[0].case}: {lacking[0].note})."
            if lacking
            else "Nothing was measured."
        )
    return f"No regression in {compared} comparisons."


def remarks(outcome: Outcome) -> list[str]:
    """Return what a reader should know besides the table."""
    equal = sum(each.kind == "exact" and each.status == "same" and not each.change for each in outcome.findings)
    found = [f"{equal} figures that no noise touches are equal to the last digit"] if equal else []
    if any(each.status == "changed" for each in outcome.findings):
        found.append(
            "changed: seeded runs or neuron cores give other results, with no figure worse; "
            'if that is meant, `--changed report` or `changed = "report"` in [tool.spikebench.regress] lets it pass'
        )
    return found + outcome.notes


def terminal(outcome: Outcome) -> str:
    """Return the table with remarks and verdict."""
    parts = [f"base  {outcome.base['title']}\nhead  {outcome.head['title']}"]
    table = rows(outcome)
    if table:
        parts.append(tabulate(table, HEADS, tablefmt="simple", disable_numparse=True, colalign=("left", "left", *["right"] * 5, "left")))
    parts.append("\n".join([*(f"- {each}" for each in remarks(outcome)), verdict(outcome)]))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    """Return a text that Markdown and HTML show as it is."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]|~#!" else sign for sign in escaped)


def markdown(outcome: Outcome | None, reason: str = "") -> str:
    """Return the same for a job summary; everything that comes from outside is escaped."""
    if outcome is None:
        return f"### spikebench regress: not measured\n\n{_cell(reason)}\n"
    table = rows(outcome)
    lines = [f"### spikebench regress: {VERDICTS[outcome.exit_status]}", ""]
    lines += [f"{_cell(outcome.base['title'])} against {_cell(outcome.head['title'])}. {_cell(verdict(outcome))}", ""]
    if table:
        lines += ["| " + " | ".join(HEADS) + " |", "|---|---|" + "---:|" * 5 + "---|"]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in table] + [""]
    lines += [f"- {_cell(each)}" for each in remarks(outcome)]
    return "\n".join(lines) + "\n"
