"""Judges times that two sides took by turns: a rank test, an effect size, and the noise that each side shows by itself.

Bursts come in pairs, base and head within a fraction of a second, so that what disturbs the machine for longer disturbs both. Of the
logarithms of their ratios:

- **p**: Wilcoxon's signed-rank test, one-sided (the head is not slower);
- **ratio**: the median, with its 95 % bootstrap interval; **delta**: Cliff's delta of the bursts (1: every one of the head's is slower);
- **noise**: what the median may scatter by: ``2.5 x 1.2533 x s / sqrt(pairs)``, where ``s`` is 1.4826 times the median absolute deviation
  (a robust standard deviation) and 1.2533 the standard error of a median over that of a mean.

A timing is *suspected* of being slower when p < 0.05 and the ratio exceeds 1 + the larger of threshold and noise; of being faster, the
other way round. What two processes differ by all the time they live (where the loader put things in memory) no test within one pair of
processes can tell from the code. So each suspect is measured again in fresh processes, and is slower or faster only if the ratio exceeds
the threshold in every such pair of processes, threshold and noise in all together (where noise is at least 2.5 standard errors of the
mean of the processes' ratios), and the rank test of all fresh pairs holds at ``alpha`` after Holm's correction for the number of suspects.
The first measurement only chooses; it takes no part in these.

Sources: Wilcoxon, Biometrics Bulletin 1, 1945; Cliff, Psychological Bulletin 114, 1993; Holm, Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.regress.finding import Finding
from harness.regress.plan import Timing
from harness.regress.settings import Settings
from harness.statistics import holm

SUSPICION = 0.05
WIDTH = 2.5  # standard errors that noise may explain
MEDIAN = 1.2533  # sqrt(pi / 2)
MAD = 1.4826


@dataclass(frozen=True)
class Bursts:
    """Seconds per call in one pair of processes; burst i of one side ran beside burst i of the other."""

    base: list[float]
    head: list[float]

    def steps(self) -> np.ndarray:
        """Return the logarithm of head over base, pair by pair."""
        return np.log(self.head) - np.log(self.base)

    @property
    def ratio(self) -> float:
        """Return the median of head over base."""
        return float(np.exp(np.median(self.steps())))

    @property
    def noise(self) -> float:
        """Return the relative change of the median that the scatter of the pairs may bring about."""
        steps = self.steps()
        spread = MAD * np.median(np.abs(steps - np.median(steps)))
        return float(np.expm1(WIDTH * MEDIAN * spread / np.sqrt(len(steps))))


def p_slower(steps: np.ndarray) -> float:
    """Return the p value of Wilcoxon's signed-rank test that the median of ``steps`` is not above 0."""
    from scipy.stats import wilcoxon  # takes a while to import

    steps = steps[steps != 0]
    return float(wilcoxon(steps, alternative="greater").pvalue) if steps.size else 1.0


def cliffs_delta(base: Sequence[float], head: Sequence[float]) -> float:
    """Return the share of pairs in which head is larger minus that in which it is smaller."""
    return float(np.sign(np.subtract.outer(np.asarray(head), np.asarray(base))).mean())


def ratio_interval(steps: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (percentiles) of the median ratio minus 1."""
    drawn = np.random.default_rng(0).integers(0, len(steps), (2000, len(steps)))
    low, high = np.percentile(np.median(steps[drawn], axis=1), [2.5, 97.5])
    return float(np.expm1(low)), float(np.expm1(high))


def bound(bursts: Bursts, timing: Timing, settings: Settings) -> float:
    """Return the slowing that is let pass: the larger of threshold and noise."""
    return max(settings.threshold(timing.metric), bursts.noise)


def between(sessions: Sequence[Bursts]) -> float:
    """Return the relative change of their median ratio that the scatter between pairs of processes may bring about."""
    if len(sessions) < 2:
        return 0.0
    return float(np.expm1(WIDTH * np.std([np.log(each.ratio) for each in sessions], ddof=1) / np.sqrt(len(sessions))))


def suspected(bursts: Bursts, timing: Timing, settings: Settings) -> int:
    """Return 1 if the head looks slower, -1 if it looks faster, else 0."""
    for sign in (1, -1):
        if p_slower(sign * bursts.steps()) < SUSPICION and bursts.ratio**sign > 1 + bound(bursts, timing, settings):
            return sign
    return 0


# Measures timings in fresh processes: name -> one entry per pair of processes.
Again = Callable[[Sequence[Timing]], dict[str, list[Bursts]]]


def judge(first: dict[str, Bursts], timings: Sequence[Timing], settings: Settings, again: Again) -> list[Finding]:
    """Return what came of all timings; those that look slower or faster are measured ``again``."""
    measured = [each for each in timings if each.name in first]
    signs = {each.name: suspected(first[each.name], each, settings) for each in measured}
    suspects = [each for each in measured if signs[each.name]]
    fresh = again(suspects) if suspects else {}
    held = [name for name in signs if signs[name] and name in fresh]
    p_values = dict(zip(held, holm([p_slower(signs[name] * _joined(fresh[name]).steps()) for name in held]), strict=True))
    found = []
    for each in measured:
        sign, name = signs[each.name], each.name
        sessions = fresh.get(name, [])
        allowed = bound(_joined(sessions or [first[name]]), each, settings)
        status, note = "same", ""
        if sign and not sessions:
            status, note = "unmeasured", "it seemed to differ, and could not be looked at again"
        elif sign:
            threshold = settings.threshold(each.metric)
            allowed = max(allowed, between(sessions))
            beyond = _joined(sessions).ratio ** sign > 1 + allowed and all(session.ratio**sign > 1 + threshold for session in sessions)
            sure = beyond and p_values[name] < settings.alpha
            status = ("slower" if sign > 0 else "faster") if sure else "unconfirmed"
            note = "pairs of processes: " + ", ".join(f"{session.ratio - 1:+.1%}" for session in (first[name], *sessions))
        found.append(_finding(each, _joined(sessions or [first[name]]), status, note, allowed, p_values.get(name)))
    return found


def _joined(sessions: Sequence[Bursts]) -> Bursts:
    return Bursts([t for each in sessions for t in each.base], [t for each in sessions for t in each.head])


def _finding(timing: Timing, bursts: Bursts, status: str, note: str, allowed: float, p: float | None) -> Finding:
    steps, base, head = bursts.steps(), bursts.base, bursts.head
    return Finding(
        timing.case,
        timing.metric,
        "timed",
        status,
        float(np.median(base)),
        float(np.median(head)),
        "s",
        allowed,
        float(np.expm1(np.median(steps))),
        ratio_interval(steps),
        p_slower(steps) if p is None else p,
        cliffs_delta(base, head),
        len(steps),
        note,
    )
