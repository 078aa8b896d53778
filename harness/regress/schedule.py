"""Lets both sides take turns at what is timed: short bursts within a fraction of a second of each other, base first and head first by turns.

A *session* is one pair of fresh processes, both on the same core. Round by round it goes through all timings, so that each meets the whole
of what the machine does meanwhile. Both sides take the same number of calls, so that what they train goes through the same states; a burst
is its fastest call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from harness.regress.finding import Finding
from harness.regress.plan import Timing
from harness.regress.settings import Settings
from harness.regress.side import Side
from harness.regress.timing import Bursts, judge
from harness.regress.worker import Worker, WorkerError

BURST = 0.05  # seconds of a burst, about
CALLS = (2, 40)  # at least and at most in a burst
SESSIONS = 2  # pairs of fresh processes that must confirm a suspicion
Say = Callable[[str], None]


def _core() -> int | None:
    """Return the core to measure on: the last of those allowed; None where processes cannot be kept on one."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else None


def session(sides: Sequence[Side], timings: Sequence[Timing], rounds: int, say: Say) -> tuple[dict[str, Bursts], list[Finding]]:
    """Return the bursts of all timings in one pair of processes, and findings for what one of the sides could not do.

    ``sides`` are in the order in which they are started; the one called "base" is the base.
    """
    core, failures = _core(), []
    with ExitStack() as stack:
        workers = {side.name: stack.enter_context(Worker(side, core)) for side in sides}
        calls, ready = {}, []
        for timing in timings:
            said = {}
            for name, worker in workers.items():
                try:
                    answer = worker.ask({"do": "prepare", "name": timing.name, "kind": timing.metric, **timing.order})
                    calls[timing.name] = min(CALLS[1], max(CALLS[0], round(BURST / answer["seconds"])))
                except WorkerError as error:
                    if error.dead:  # it cannot time the others either
                        raise DeadError(name, timing, str(error)) from None
                    said[name] = str(error)
            if said:
                failures.append(failed(timing, said))
            else:
                ready.append(timing)
        taken: dict[str, dict[str, list[float]]] = {each.name: {"base": [], "head": []} for each in ready}
        for number in range(rounds):
            order = ("base", "head") if number % 2 == 0 else ("head", "base")
            for timing in ready:
                for name in order:
                    try:
                        answer = workers[name].ask({"do": "time", "name": timing.name, "calls": calls[timing.name]})
                    except WorkerError as error:
                        raise DeadError(name, timing, str(error)) from None
                    taken[timing.name][name].append(min(answer["seconds"]))
            say(f"times: round {number + 1} of {rounds}")
    return {name: Bursts(found["base"], found["head"]) for name, found in taken.items()}, failures


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
            first, more = session(sides, left, rounds, say)
            break
        except DeadError as error:  # without it, from the start
            failures.append(failed(error.timing, {error.side: str(error)}))
            left = [each for each in left if each.name != error.timing.name]

    def again(suspects: Sequence[Timing]) -> dict[str, list[Bursts]]:
        found: dict[str, list[Bursts]] = {}
        for number in range(SESSIONS):
            say(f"looking again, in fresh processes, at {len(suspects)} that seem slower ({number + 1} of {SESSIONS})")
            ordered = list(sides) if number % 2 else list(reversed(sides))
            try:
                bursts, _ = session(ordered, suspects, rounds, say)
            except DeadError as error:
                failures.append(failed(error.timing, {error.side: str(error)}))
                return {}
            for name, each in bursts.items():
                found.setdefault(name, []).append(each)
        return found

    return judge(first, left, settings, again) + more + failures
