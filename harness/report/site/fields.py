"""What every field of a record and every metric means, for the page of a run: read off the models and the registry."""

from __future__ import annotations

import typing
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from harness.metrics import METRICS, TASK_METRICS, ladders
from harness.record import STATUSES, Record


def meanings(model: type[BaseModel] = Record, above: str = "") -> dict[str, str]:
    """Return dotted path -> description of every field that has one; parts in lists have the path of their list."""
    found = {}
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        if field.description:
            found[path] = field.description
        for part in _models(field.annotation):
            found |= meanings(part, f"{path}.")
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def dictionary() -> dict[str, Any]:
    """Return what ``static/figures.js`` needs to write figures as tables do, and to say what they mean."""
    return {
        "metrics": [{**asdict(metric), "worst": None} for metric in METRICS.values()],
        "mains": {name: list(about) for name, about in TASK_METRICS.items()},
        "ladders": {unit: [[scale.size, scale.unit] for scale in scales] for unit, scales in ladders().items()},
        "statuses": STATUSES,
        "meanings": meanings(),
    }
