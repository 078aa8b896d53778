"""Claims of papers beside what was measured, as the claims page and the pages of methods show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.metrics import METRICS, MISSING
from harness.report.claims import VERDICTS, Finding
from harness.report.site.leaderboard import Cell, Grid, Head, number

STYLES = dict(zip(VERDICTS, ("holds", "direction", "fails", "unseen", "unknown"), strict=True))


def grid(findings: Sequence[Finding], pages: Mapping[str, str], root: str) -> Grid:
    """Return a line per claim: what is said and where, the paper's figure, ours, verdict, and how to measure it. Measured ones first."""
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
        Head("measured by", wide=True),
    ]
    lines = []
    order = list(VERDICTS)
    for each in sorted(findings, key=lambda each: order.index(each.verdict)):
        claim = each.claim
        title = METRICS[claim.metric].title if claim.metric in METRICS else claim.metric
        about = f"{claim.task}: {claim.setting}" if claim.setting else claim.task
        against = f"against {claim.against}; " if claim.against else ""
        href = f"{root}methods/{pages[each.method]}.html" if each.method in pages else ""
        ours = each.measured_text
        why = f"{each.where}; {each.reason}" if each.where and each.reason else each.where or each.reason
        lines.append(
            [
                Cell(each.label, order=each.label, href=href),
                Cell(about, f"{against}stated in {claim.source}", about),
                Cell(title, order=title),
                Cell(each.paper_text, order=each.paper_text),
                Cell(ours, order=ours),
                Cell(str(each.n or MISSING), order=number(each.n or None)),
                Cell(each.verdict, order=str(order.index(each.verdict)), style=STYLES.get(each.verdict, "unknown")),
                Cell(why, order=why),
                Cell(each.command or MISSING, order=each.command, style="code" if each.command else ""),
            ]
        )
    return Grid(heads, lines)


def summary(findings: Sequence[Finding]) -> list[tuple[str, int, str]]:
    """Return each verdict with the number of claims and its style, in the order good to unknown."""
    return [(verdict, sum(each.verdict == verdict for each in findings), style) for verdict, style in STYLES.items()]
