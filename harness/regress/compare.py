"""Two commits compared, from names to an outcome."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.environment import cpu_model
from harness.regress import exact, figures, schedule
from harness.regress.finding import Finding, Outcome
from harness.regress.plan import Plan
from harness.regress.settings import Settings
from harness.regress.side import Side, checkout, dependencies

Say = Callable[[str], None]


def compare(base: str, head: str, plan: Plan, settings: Settings, rounds: int, say: Say) -> Outcome:
    """Put both into folders, measure them, judge. Raises UsageError if one of them cannot be measured at all."""
    started = time.monotonic()
    say(f"checking out {base} and {head}")
    with checkout(base, head) as (one, other):
        notes = list(plan.notes)
        if one.commit == other.commit and not (one.dirty or other.dirty):
            notes.append("both are the same state of the code")
        notes += _dependencies(one, other)
        found = [each for side in _exact(plan, one, other, settings, say) for each in side]
        timings = plan.timings if rounds else []
        broken = {each.case for each in found if each.status in ("failed", "unmeasured", "new")}
        timings = [each for each in timings if each.case not in broken]  # said once is enough
        if timings:
            found += schedule.measure((one, other), timings, rounds, settings, say)
        else:
            notes.append("nothing was timed")
        told = {"machine": cpu_model(), "threads": 1, "rounds": rounds, **settings.plain()}
        return Outcome(one.plain(), other.plain(), found, notes, told, time.monotonic() - started)


def _exact(plan: Plan, one: Side, other: Side, settings: Settings, say: Say) -> list[list[Finding]]:
    base, head = figures.measure(plan, (one, other), say)
    return [exact.compare(case, base[case], head[case], settings) for case in base]


def _dependencies(one: Side, other: Side) -> list[str]:
    before, after = dependencies(one), dependencies(other)
    if before == after:
        return []
    moved = [*(f"-{each}" for each in before if each not in after), *(f"+{each}" for each in after if each not in before)]
    return [f"the two ask for different packages ({', '.join(moved)}); both were measured with those installed here"]
