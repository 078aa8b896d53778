"""From a store to findings: for each claim the best group of runs, its figure, interval and verdict.

Of several groups that one counts that is nearest to the paper: as claimed, then on its task. Of what was learnt, then one without further
options or settings, with three seeds, of one code, of the larger budget; of bytes and the like, and times of no named task, that at the
nearest number of time steps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from harness.metrics import METRICS, Metric, as_task_metric
from harness.plugin import EXPECTED, Claim, UsageError
from harness.registry import Registries
from harness.report.claims import command, pairing
from harness.report.claims.finding import DIRECTION, FAILS, HOLDS, UNKNOWN, UNSEEN, Finding, reading_of
from harness.report.claims.judge import margin, verdict
from harness.report.claims.pairing import Group, Pool, Row, axis, together
from harness.report.claims.setting import differences, on_task, same_size, structural, timed, usable
from harness.report.scaling import fit
from harness.statistics import interval
from harness.store import Store

STANDS_IN = {"cuda_bytes": "saved_bytes"}
BUDGETS = ("smoke", "laptop", "paper")
ENOUGH = 3  # seeds: more do not make a group better than another
CURVE = 3  # values of time steps, depth or an option that make a curve


def collect(store: Store, registries: Registries, methods: Sequence[str] = ()) -> list[Finding]:
    """Return a finding for every claim of the cards of ``methods`` (and probes; default: of all), in the order of names and cards.

    ``store`` should read sub-folders (``deep=True``), where studies lie. A record whose figures are no numbers has none.
    """
    return gather(store, registries, methods)[0]


def gather(store: Store, registries: Registries, methods: Sequence[str] = ()) -> tuple[list[Finding], list[str]]:
    """Return what ``collect`` does, and the names of unreadable files."""
    cards = [
        (name, registry.card(name))
        for registry in (registries.methods, registries.probes)
        for name in registry.names()
        if not methods or name in methods
    ]
    claims = [(name, claim) for name, card in cards for claim in card.claims]
    wanted = {claim.metric for _, claim in claims} | {STANDS_IN[claim.metric] for _, claim in claims if claim.metric in STANDS_IN}
    figures = {f"figure {place}": path for place, path in enumerate({claim.figure for _, claim in claims if claim.figure})}
    rows, broken = store.select({**pairing.PATHS, **{name: METRICS[name].path for name in wanted}, **figures})
    for row in rows:
        row.update({path: row[name] for name, path in figures.items()})
    pool = Pool(rows)
    return [_find(name, claim, pool) for name, claim in claims], broken


def _find(method: str, claim: Claim, pool: Pool) -> Finding:
    label = claim.variant or method
    expected = EXPECTED.fullmatch(claim.expect) if claim.expect else None
    try:
        if claim.kind == "property" and not expected:
            found = None
        elif expected and expected["growth"]:
            found = _growth(method, claim, label, expected["growth"], expected["over"], pool)
        else:
            found = _level(method, claim, label, pool)
    except UsageError as error:  # a label that a card of others got wrong
        return Finding(method, claim, UNKNOWN, reason=str(error))
    if found is not None:
        return found
    measurable = claim.kind != "property" or expected is not None
    reason = _missing(claim, label, pool) if measurable else claim.unmeasured or ("" if claim.tested else "stated in words")
    reason = "; ".join(text for text in (reason, f"tested: {claim.tested}" if claim.tested else "") if text)
    return Finding(method, claim, UNKNOWN, reason=reason, command=command.to_measure(claim, label) if measurable else "")


def _missing(claim: Claim, label: str, pool: Pool) -> str:
    """Return why no group of runs measures a claim."""
    expected = EXPECTED.fullmatch(claim.expect) if claim.expect else None
    if expected and expected["growth"]:
        return f"no runs of {label} at {CURVE} values of {expected['over']}"
    if claim.metric == "steps_used" and claim.kind != "property":
        return "time steps are set here, not found"
    if not claim.against:
        return f"no run of {label}" + (f" on {claim.task}" if claim.task != "any" else "")
    if matched := pool.groups(label, claim.against):
        if timed(METRICS[claim.metric]) and not pool.groups(label, claim.against, session=True):
            return f"{label} and {claim.against} were timed in different sessions"
        if not any(same_size(claim, METRICS[claim.metric], group) for group in matched):
            return f"the networks of {label} and {claim.against} that were run differ in size by more than half"
        return f"the records of {label} and {claim.against} lack this figure"
    return f"no matched runs of {label} and {claim.against}"


def _level(method: str, claim: Claim, label: str, pool: Pool) -> Finding | None:
    """Return what came of a claim about one figure or the comparison of two."""
    best: tuple[tuple[float, ...], Group, Metric, list[float], list[str]] | None = None
    paired = reading_of(claim) != "value"
    alone = not paired and claim.task != "any"  # a figure of another task says nothing about it
    for name in dict.fromkeys((claim.metric, STANDS_IN.get(claim.metric, claim.metric))):
        metric = METRICS[name]
        for against in dict.fromkeys((claim.against, claim.instead or claim.against)) if paired else (None,):
            for found in pool.groups(label, against, session=timed(metric)):
                group, values = _values(claim, metric, found)
                if not values or not usable(claim, metric, group) or (alone and not on_task(claim, group)):
                    continue
                other = differences(claim, metric, group, against)
                if other and not same_size(claim, metric, group):
                    continue
                if best is None or _worth(claim, metric, group, other) > best[0]:
                    best = (_worth(claim, metric, group, other), group, metric, values, other)
            if best is not None:
                break
        if best is not None:
            break
    if best is None:
        return None
    _, group, metric, values, other = best
    ends = interval(values) or ((min(values), max(values)) if structural(claim, metric) else None)
    said = verdict(claim, as_task_metric(metric, group.rows[0]["measure"] or ""), values, ends, not other)
    return _finding(method, claim, said, statistics.fmean(values), ends, group, other)


def _finding(
    method: str, claim: Claim, said: str, measured: float, ends: tuple[float, float] | None, group: Group, other: list[str], over: str = ""
) -> Finding:
    low, high = ends or (None, None)
    rows = [*group.rows, *group.others]
    again = command.of_runs(rows)
    seeds = len({row["seed"] for row in group.rows})
    reason = ("elsewhere: " + "; ".join(other)) if other else ""
    if said == UNSEEN:
        none = 0.0 if reading_of(claim) == "difference" else 1.0
        why = "no difference lies in the interval" if low is not None and high is not None and low <= none <= high else "short of the claim"
        reason = f"{reason}; {why}" if reason else why
    if claim.tested:
        reason = f"{reason}; tested: {claim.tested}" if reason else f"tested: {claim.tested}"
    return Finding(method, claim, said, measured, low, high, seeds, _where(group, over), reason, again, tuple(row["key"] for row in rows))


def _where(group: Group, over: str) -> str:
    """Return task, budget, track, time steps, device and code of a group, in one line."""
    row = group.rows[0]
    steps = [f"{each['steps']}" for each in (row, *group.others[:1])]
    at = f"T={steps[0]}" if len(set(steps)) == 1 else f"T={steps[0]} and {steps[1]}"
    if over:
        values = sorted({value for each in group.rows if (value := axis(each, over)) is not None})
        at = f"{over} {', '.join(f'{value:g}' for value in values)}" + ("" if over == "steps" else f", {at}")
    commits = {str(each["commit"])[:7] for each in (*group.rows, *group.others)}
    code = f"code {commits.pop()}" if len(commits) == 1 else "several versions of the code"
    return f"{row['task']}, {row['budget']} budget, {row['track']} track, {at}, {row['device']} ({row['kind']}), {code}"


def _worth(claim: Claim, metric: Metric, group: Group, other: list[str]) -> tuple[float, ...]:
    row, wanted = group.rows[0], claim.steps[0]
    budget = BUDGETS.index(row["budget"]) if row["budget"] in BUDGETS else -1
    near = -abs(math.log(row["steps"] / wanted)) if wanted else 0.0
    own = on_task(claim, group)
    plain = not group.surplus and not row["training"] and row["samples"] is None
    seeds = min(len(group.rows), ENOUGH)
    learnt = (plain, seeds, group.one_code, budget, near)
    exact = structural(claim, metric) or (timed(metric) and claim.task == "any")
    return not other, own, *((near, plain, seeds) if exact else learnt), -(row["depth"] or 0)


def _figure(claim: Claim, metric: Metric, row: Row) -> float | None:
    try:
        value = float(row[claim.figure or metric.name])
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _values(claim: Claim, metric: Metric, group: Group) -> tuple[Group, list[float]]:
    """Return the group without seeds that lack the figure, and per seed the value, ratio or difference."""
    reading = reading_of(claim)
    kept: list[tuple[Row, Row | None, float]] = []
    for place, row in enumerate(group.rows):
        other = group.others[place] if group.others else None
        mine, theirs = _figure(claim, metric, row), _figure(claim, metric, other) if other else None
        if claim.metric == "steps_used" and claim.kind != "property" and mine == row["steps"]:
            continue  # time steps that were set are no finding; those of early exit are
        if mine is None or (other is not None and theirs is None):
            continue
        if reading == "value" or other is None or theirs is None:
            kept.append((row, None, mine))
        elif reading == "difference":
            kept.append((row, other, mine - theirs))
        elif theirs > 0:
            kept.append((row, other, mine / theirs))
    others = [other for _, other, _ in kept if other is not None]
    return Group([row for row, _, _ in kept], others, group.surplus, group.one_code), [value for _, _, value in kept]


def _growth(method: str, claim: Claim, label: str, word: str, over: str, pool: Pool) -> Finding | None:
    """Return what came of a claim about how a figure goes over time steps, depth or an option."""
    metric, best = METRICS[claim.metric], None
    for group in pool.groups(label, None, session=timed(metric), free=over):
        rows = [row for row in group.rows if _figure(claim, metric, row) is not None]
        curve = {x for row in rows if (x := axis(row, over)) is not None}
        if len(curve) < CURVE or (timed(metric) and not together(rows)):
            continue
        kept = Group(rows, [], group.surplus, group.one_code)
        worth = (len(curve), len({row["seed"] for row in rows}), group.one_code, -len(group.surplus))
        if best is None or worth > best[0]:
            best = (worth, kept)
    if best is None:
        return None
    group = best[1]
    other = [text for text in differences(claim, metric, group) if not text.startswith("T=")]
    points: dict[float, dict[int, float]] = {}
    for row in group.rows:
        points.setdefault(axis(row, over) or 0.0, {})[row["seed"]] = _figure(claim, metric, row) or 0.0
    first, last = points[min(points)], points[max(points)]
    share = metric.unit == "fraction"
    seeds = [seed for seed in first if seed in last and (share or first[seed])]
    changes = [last[seed] - first[seed] if share else last[seed] / first[seed] for seed in seeds]
    if not changes:
        return None
    ends = interval(changes) or ((min(changes), max(changes)) if structural(claim, metric) else None)
    if word in ("constant", "linear"):
        met = fit(sorted(points), [statistics.fmean(points[x].values()) for x in sorted(points)]).verdict == word
        said = (HOLDS if met else FAILS) if not other else (DIRECTION if met else UNSEEN)
    else:
        low, high = ends or (min(changes), max(changes))
        none = 0.0 if share else 1.0
        reach = margin(claim, metric, none)
        met, refuted = {
            "falls": (high < none, low >= none),
            "does not fall": (low >= none - reach, high < none - reach),
            "does not grow": (high <= none + reach, low > none + reach),
        }[word]
        said = (HOLDS if met else FAILS if refuted else UNSEEN) if not other and ends else (DIRECTION if met else UNSEEN)
    return _finding(method, claim, said, statistics.fmean(changes), ends, group, other, over)
