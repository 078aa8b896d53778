"""Findings as text: for a terminal by method, for github measured and not measured apart, for other formats as one table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from tabulate import tabulate

from harness.metrics import MISSING
from harness.report.claims.finding import UNKNOWN, VERDICTS, Finding

CLAIM = ("metric", "kind", "value", "expect", "against", "task", "setting", "source", "variant", "figure")
FOUND = ("measured", "low", "high", "n", "verdict", "where", "reason", "command")
HEADS = ("method", "claim", "paper", "here", "n", "verdict", "measured on, or why not", "command")
TABULATE = {"latex": "latex_booktabs", "html": "html"}
LATEX = {"×": r"$\times$", "–": "--", "…": r"\ldots{}", "µ": r"$\mu$", "±": r"$\pm$", "→": r"$\to$", "∞": r"$\infty$"}


def render(findings: Sequence[Finding], style: str) -> str:
    """Return the findings in one of the formats of tables; in csv with all digits. Texts of records are made harmless."""
    if style == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["method", *CLAIM, *FOUND])
        for each in findings:
            writer.writerow([each.method, *(getattr(each.claim, name) for name in CLAIM), *(getattr(each, name) for name in FOUND)])
        return text.getvalue().rstrip("\n")
    if style == "github":
        return _github(findings)
    if style == "terminal":
        return "\n".join([*_terminal(findings), "", summary(findings)])
    rows = [[_plain(cell) for cell in _cells(each)] for each in findings]
    body = tabulate(rows, HEADS, tablefmt=TABULATE[style], disable_numparse=True)
    if style == "latex":
        for letter, code in LATEX.items():
            body = body.replace(letter, code)
        body = "".join(letter if letter.isascii() else "?" for letter in body)
        return f"% {summary(findings)}\n{body}"
    return f"<p>{summary(findings)}</p>\n{body}"


def summary(findings: Sequence[Finding]) -> str:
    """Return how many claims there are, and how many of each verdict."""
    counts = {name: sum(each.verdict == name for each in findings) for name in VERDICTS}
    return f"{len(findings)} claims: " + ", ".join(f"{count} {name}" for name, count in counts.items())


def _plain(text: str) -> str:
    """Return a text without line ends and control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _cells(each: Finding) -> list[str]:
    why = f"{each.where}; {each.reason}" if each.where and each.reason else each.where or each.reason
    return [each.label, each.about, each.paper_text, each.measured_text, str(each.n or MISSING), each.verdict, why, each.command or MISSING]


def _terminal(findings: Sequence[Finding]) -> list[str]:
    lines: list[str] = []
    for method in dict.fromkeys(each.method for each in findings):
        lines += ["", method]
        for each in (each for each in findings if each.method == method):
            n = f" (n={each.n})" if each.n else ""
            variant = f"{each.claim.variant}: " if each.claim.variant else ""
            lines.append(f"  {each.verdict:<15} {variant}{each.about}")
            lines.append(f"  {'':<15} paper {each.paper_text}; here {each.measured_text}{n}")
            lines += [f"  {'':<15} {part}" for part in (each.where, each.reason) if part]
            lines += [f"  {'':<15} $ {each.command}"] if each.command else []
    return [_plain(line) for line in lines[1:]]


def _github(findings: Sequence[Finding]) -> str:
    """Return a table of what was measured, then lists of what was not, by method; commands stand below, by number."""
    commands = {text: number for number, text in enumerate(dict.fromkeys(each.command for each in findings if each.command), 1)}
    parts = [f"{summary(findings)}."]
    measured = [each for each in findings if each.verdict != UNKNOWN]
    for verdict in VERDICTS:
        chosen = [each for each in measured if each.verdict == verdict]
        if chosen:
            heads = ("method", "claim", "paper", "here [95 %]", "n", "measured on", "command")
            rows = []
            for each in chosen:
                _, about, paper, here, n, _, why, _ = (_markdown(cell) for cell in _cells(each))
                rows.append([_code(each.label), about, paper, here, n, why, f"[{commands[each.command]}]" if each.command else MISSING])
            parts += [f"### {verdict[0].upper()}{verdict[1:]}", tabulate(rows, heads, tablefmt="github", disable_numparse=True)]
    missing = [each for each in findings if each.verdict == UNKNOWN]
    if missing:
        parts.append(f"### {UNKNOWN[0].upper()}{UNKNOWN[1:]}")
    for method in dict.fromkeys(each.method for each in missing):
        lines = []
        for each in (each for each in missing if each.method == method):
            number = f" [{commands[each.command]}]" if each.command else ""
            variant = f"{_code(each.claim.variant)}, " if each.claim.variant else ""
            lines.append(f"- {variant}{_markdown(each.about)}: {_markdown(each.paper_text)}. {_markdown(each.reason)}{number}")
        parts.append("\n".join([f"{_code(method)}\n", *lines]))
    if commands:
        parts += ["### Commands", "\n".join(f"{number}. {_code(text)}" for text, number in commands.items())]
    return "\n\n".join(parts)


def _markdown(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    text = _plain(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*|~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)  # "_" inside a word is shown as it is


def _code(text: str) -> str:
    return "`" + _plain(text).replace("`", "'").replace("|", r"\|") + "`"
