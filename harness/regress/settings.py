"""Thresholds and choices of ``spikebench regress``: defaults, and what ``[tool.spikebench.regress]`` of a pyproject.toml changes.

::

    [tool.spikebench.regress]
    changed = "report"              # results that differ while no figure is worse: "fail" (default) or "report"
    alpha = 0.01                    # level of the rank tests, after Holm's correction
    [tool.spikebench.regress.thresholds]
    step_time = 0.10                # relative worsening that is let pass
    test_accuracy = 0.005           # of fractions: the difference, here half a point
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.metrics import METRICS, Metric
from harness.plugin import UsageError, did_you_mean

TIMES = {
    "step_time": "a training step",
    "answer_time": "inference of a batch",
    "core_time": "forward and backward pass of a layer of neurons",
    "loader_time": "going once through the test data, encoding included",
    "harness_time": "a short epoch through the loop of the harness",
}
# Figures that records do not hold, all better when lower.
OWN = {
    "loss": "loss of the last epoch",
    "operations": "operations that a training step, or a neuron core both ways, dispatches",
    "left_bytes": "bytes that a training step leaves behind every time: 0, or memory grows without end",
}
DEFAULT_THRESHOLDS = {"step_time": 0.05, "answer_time": 0.05, "core_time": 0.05, "loader_time": 0.05, "harness_time": 0.05}
CHANGED = ("fail", "report")


def metric_of(name: str) -> Metric:
    """Return the metric of a name, be it of a record or of ``TIMES`` or ``OWN``."""
    if name in METRICS and name not in TIMES:
        return METRICS[name]
    unit = "s" if name in TIMES else "B" if name.endswith("bytes") else ""
    return Metric(name, name.replace("_", " "), unit, "lower", float("inf"), "", ".4g", {**TIMES, **OWN}[name])


@dataclass(frozen=True)
class Settings:
    """What decides between noise and regression."""

    thresholds: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_THRESHOLDS))
    changed: str = "fail"
    alpha: float = 0.01

    def threshold(self, metric: str) -> float:
        """Return the worsening of a metric that is let pass."""
        return self.thresholds.get(metric, 0.0)

    def plain(self) -> dict[str, Any]:
        """Return the settings for JSON."""
        return asdict(self)


def read(folder: Path, changed: str | None = None) -> Settings:
    """Return the settings of the ``pyproject.toml`` of a folder, defaults where it or its section is missing; ``changed`` overrides.

    Raises UsageError for a file that cannot be read, an unknown name, or a value that does not fit.
    """
    path = folder / "pyproject.toml"
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}) if path.is_file() else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"pyproject.toml cannot be read: {error}") from None
    section = tool.get("spikebench", {}).get("regress", {})
    known = ("thresholds", "changed", "alpha")
    for name in section:
        if name not in known:
            raise UsageError(f"[tool.spikebench.regress] knows no {name!r}{did_you_mean(name, known)}")
    given = section.get("thresholds", {})
    names = [*TIMES, *OWN, *METRICS]
    for name, value in given.items():
        if name not in names:
            raise UsageError(f"[tool.spikebench.regress.thresholds] names a metric that is not there: {name!r}{did_you_mean(name, names)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 100:
            raise UsageError(f"the threshold of {name} is {value!r}; write what is let pass as a number from 0, for example 0.05")
    chosen = changed if changed is not None else section.get("changed", "fail")
    if chosen not in CHANGED:
        raise UsageError(f"changed = {chosen!r}: write {' or '.join(CHANGED)}{did_you_mean(str(chosen), CHANGED)}")
    alpha = section.get("alpha", 0.01)
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < 0.5:
        raise UsageError(f"alpha = {alpha!r}: write a number between 0 and 0.5")
    return Settings({**DEFAULT_THRESHOLDS, **{name: float(value) for name, value in given.items()}}, chosen, float(alpha))
