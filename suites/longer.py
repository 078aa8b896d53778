"""A task at several times the length that networks were trained on, for ``Task.extrapolations``."""

from __future__ import annotations

from dataclasses import replace

from harness.task import Task

TIMES = (2, 4, 8, 15)
SAMPLES = 256  # test samples at twice the length; fewer at more, so that each evaluation sees as many steps


def longer(task: Task, length: int) -> dict[str, Task]:
    """Return ``{"length x2": task, ...}`` of a task whose option ``length`` is ``length`` now; the same budget, but few test samples."""
    found: dict[str, Task] = {}
    for times in TIMES:
        options = task.options.model_dump() | {"length": length * times}
        other = type(task)(task.budget_name, task.device, options)
        count = max(1, SAMPLES * TIMES[0] // times)
        other.budget = replace(other.budget, test_samples=min(count, task.budget.test_samples or count))
        found[f"length x{times}"] = other
    return found
