"""Lets both sides take turns at what is timed: short bursts within a fraction of a second of each other.

A *session* is one pair of fresh processes, both on the same core. Round by round it goes through all timings, so that each meets the whole
of what the machine does meanwhile; at each it takes four bursts, base, head, head, base, or the other way round, which are two pairs. Both
sides take the same number of calls, so that what they train goes through the same states; a burst is its fastest interval. Timings whose
noise exceeds their threshold by then get further rounds, as many again at most and for ``EXTRA`` seconds; only scatter decides that, no
ratio.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from harness.regress.finding import Finding
from harness.regress.plan import Timing
from harness.regress.settings import Settings
from harness.regress.side import Side
from harness.regress.timing import Bursts, judge
from harness.regress.worker import Worker, WorkerError

BURST = 0.02  # seconds of a burst, about
INTERVAL = 0.002  # seconds that are timed in one, at least: calls that are shorter are timed several at a time
TIMES = (1, 10)  # intervals of a burst, at least and at most
EXTRA = 20.0  # seconds that noisy timings may take beyond the rounds of all
SESSIONS = 4  # pairs of fresh processes that must confirm a suspicion
Say = Callable[[str], None]


def _core() -> int | None:
    """Return the core to measure on: the last of those allowed; None where processes cannot be kept on one."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else None


def _amount(seconds: float) -> dict[str, int]:
    """Return how to fill a burst with calls of so many seconds."""
    calls = max(1, math.ceil(INTERVAL / seconds))
    return {"calls": calls, "times": min(TIMES[1], max(TIMES[0], round(BURST / (calls * seconds))))}


def session(
    sides: Sequence[Side], timings: Sequence[Timing], rounds: int, settings: Settings, say: Say
) -> tuple[dict[str, Bursts], list[Finding]]:
    """Return the bursts of all timings in one pair of processes, and findings for what one of the sides could not do.

    ``sides`` are in the order in which they are started; the one called "base" is the base.
    """
    core, failures = _core(), []
    with ExitStack() as stack:
        workers = {side.name: stack.enter_context(Worker(side, core)) for side in sides}
        amount, ready = {}, []
        for timing in timings:
            said = {}
            for name, worker in workers.items():
                try:
                    answer = worker.ask({"do": "prepare", "name": timing.name, "kind": timing.metric, **timing.order})
                    amount[timing.name] = _amount(answer["seconds"])
                except WorkerError as error:
                    if error.dead:  # it cannot time the others either
                        raise DeadError(name, timing, str(error)) from None
                    said[name] = str(error)
            if said:
                failures.append(failed(timing, said))
            else:
                ready.append(timing)
        taken = {each.name: Bursts([], []) for each in ready}

        def turn(timings: Sequence[Timing], number: int) -> None:
            order = ("base", "head", "head", "base") if number % 2 == 0 else ("head", "base", "base", "head")
            for timing in timings:
                for name in order:
                    try:
                        answer = workers[name].ask({"do": "time", "name": timing.name, **amount[timing.name]})
                    except WorkerError as error:
                        raise DeadError(name, timing, str(error)) from None
                    getattr(taken[timing.name], name).append(min(answer["seconds"]))

        for number in range(rounds):
            turn(ready, number)
            say(f"times: round {number + 1} of {rounds}")
        end = time.monotonic() + EXTRA
        for number in range(rounds, 2 * rounds):
            noisy = [each for each in ready if taken[each.name].noise > settings.threshold(each.metric)]
            if not noisy or time.monotonic() > end:
                break
            turn(noisy, number)
            say(f"times: a further round for {len(noisy)} that scatter")
    return taken, failures


class DeadError(Exception):
    """A side ended, or failed while it was timed, with what it had been asked."""

    def __init__(self, side: str, timing: Timing, message: str) -> None:
        """Keep who, at what, and why."""
        super().__init__(message)
        self.side, self.timing = side, timing


def failed(timing: Timing, said: dict[str, str]) -> Finding:
    """Return the finding for a timing that some sides (name -> reason) cannot do."""
    status = "unmeasured" if "base" in said and "head" in said else "new" if "base" in said else "failed"
    note = "; ".join(f"{side}: {reason}" for side, reason in said.items())
    return Finding(timing.case, timing.metric, "timed", status, None, None, "s", note=note)


def measure(sides: Sequence[Side], timings: Sequence[Timing], rounds: int, settings: Settings, say: Say) -> list[Finding]:
    """Time everything by turns, look again at what seems slower, and return the findings."""
    left, failures = list(timings), []
    while True:
        try:
            first, more = session(sides, left, rounds, settings, say)
            break
        except DeadError as error:  # without it, from the start
            failures.append(failed(error.timing, {error.side: str(error)}))
            left = [each for each in left if each.name != error.timing.name]

    def again(suspects: Sequence[Timing]) -> dict[str, list[Bursts]]:
        found: dict[str, list[Bursts]] = {}
        for number in range(SESSIONS):
            say(f"looking again, in fresh processes, at {len(suspects)} that seem to differ ({number + 1} of {SESSIONS})")
            ordered = list(sides) if number % 2 else list(reversed(sides))
            try:
                bursts, _ = session(ordered, suspects, rounds, settings, say)
            except DeadError as error:
                failures.append(failed(error.timing, {error.side: str(error)}))
                return {}
            for name, each in bursts.items():
                found.setdefault(name, []).append(each)
        return found

    return judge(first, left, settings, again) + more + failures
