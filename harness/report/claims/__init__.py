"""What papers claim beside what was measured: every claim of every card, from records alone.

    findings = collect(Store("results/reference", deep=True), Registries())
    print(render(findings, "terminal"))

``pairing`` finds the runs that may be compared, ``setting`` says what of the paper's setting they are not, ``judge`` gives the verdict,
``command`` what to type to measure it again, ``render`` the text.
"""

from harness.report.claims.collect import collect, gather
from harness.report.claims.finding import VERDICTS, Finding
from harness.report.claims.render import render

__all__ = ["VERDICTS", "Finding", "collect", "gather", "render"]
