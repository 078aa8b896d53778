"""Claims of papers beside what was measured, as the claims page and the pages of methods show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.metrics import METRICS, MISSING
from harness.plugin import Claim
from harness.report.claims import VERDICTS, Finding
from harness.report.site.leaderboard import Cell, Grid, Head, number

STYLES = dict(zip(VERDICTS, ("holds", "direction", "fails", "unseen", "unknown"), strict=True))


def grid(findings: Sequence[Finding], pages: Mapping[str, str], root: str) -> Grid:
    """Return a line per claim: what is said and where, how to measure it, the paper's figure, ours, verdict. Measured ones first."""
    heads = [
        Head("method", filters=True),
        Head("claim", wide=True),
        Head("metric", filters=True, minor=True),
        Head("paper"),
        Head("here", "with its interval"),
    ]
    heads += [
        Head("n", "seeds", True, True),
        Head("verdict", filters=True),
        Head("measured on, or why not", wide=True),
    ]
    lines = []
    order = list(VERDICTS)
    for each in sorted(findings, key=lambda each: order.index(each.verdict)):
        claim = each.claim
        about = claim.setting if claim.task == "any" else f"{claim.task}: {claim.setting}"
        told = [f"against {claim.against}"] if claim.against else []
        told += [f"read from {claim.figure}"] if claim.figure else []
        told.append(f"stated in {claim.source}")
        title = _measure(claim)
        href = f"{root}methods/{pages[each.method]}.html" if each.method in pages else ""
        ours = each.measured_text
        why = f"{each.where}; {each.reason}" if each.where and each.reason else each.where or each.reason
        lines.append(
            [
                Cell(each.label, order=each.label, href=href),
                Cell(about, "; ".join(told), about, command=each.command),
                Cell(title, order=title),
                Cell(each.paper_text, order=each.paper_text),
                Cell(ours, order=ours),
                Cell(str(each.n or MISSING), order=number(each.n or None)),
                Cell(each.verdict, order=str(order.index(each.verdict)), style=STYLES.get(each.verdict, "unknown")),
                Cell(why, order=why),
            ]
        )
    return Grid(heads, lines)


def _measure(claim: Claim) -> str:
    """Return the title of the metric; for a figure at another place of the record, which has no title, where that is."""
    if claim.figure:
        part = claim.figure.partition(".")[0]
        return {"report": "figure of the report", "probes": "figure of a probe"}.get(part, "figure of the record")
    return METRICS[claim.metric].title if claim.metric in METRICS else claim.metric


def summary(findings: Sequence[Finding]) -> list[tuple[str, int, str]]:
    """Return each verdict with the number of claims and its style, in the order good to unknown."""
    return [(verdict, sum(each.verdict == verdict for each in findings), style) for verdict, style in STYLES.items()]
