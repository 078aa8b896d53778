"""A task at several times the length that networks were trained on, for ``Task.extrapolations``."""

from __future__ import annotations

from dataclasses import replace

from harness.task import Task

TIMES = (2, 4, 8, 15)
SAMPLES = 128  # test samples at twice the length; fewer at more, so that each evaluation sees as many steps
MORE = 8  # times as many in budgets other than smoke


def longer(task: Task, length: int, samples: int = SAMPLES) -> dict[str, Task]:
    """Return ``{"length x2": task, ...}`` of a task whose option ``length`` is ``length`` now; the same budget, but few test samples.

    ``samples`` is how many at twice the length in the smoke budget.
    """
    samples *= 1 if task.budget_name == "smoke" else MORE
    found: dict[str, Task] = {}
    for times in TIMES:
        options = task.options.model_dump() | {"length": length * times}
        other = type(task)(task.budget_name, task.device, options)
        count = max(1, samples * TIMES[0] // times)
        other.budget = replace(other.budget, test_samples=min(count, task.budget.test_samples or count))
        found[f"length x{times}"] = other
    return found
