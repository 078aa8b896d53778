"""The command that makes the runs of a finding again, or would make them.

Runs that were cut down are those of ``spikebench scale``, all others of ``spikebench run``; seeds are 0 to the largest of the runs.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from harness.metrics import METRICS
from harness.plugin import EXPECTED, Claim, written
from harness.report.claims.finding import reading_of
from harness.report.claims.pairing import Row
from harness.report.claims.setting import timed
from harness.spec import parse_variant

LENGTH = re.compile(r"(?:(?<=\[)|,)length=(\d+),?")
LONG = 256  # time steps beyond which an image is not shown but a sequence
SWEEPS = {"steps": (2, 4, 8, 16), "depth": (1, 2, 4, 8)}


def of_runs(rows: Sequence[Row]) -> str:
    """Return what makes these runs; several commands, joined, where one cannot."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        apart = [row[name] for name in ("samples", "probes", "threads", "asked_device", "training")]
        apart += [] if row["samples"] is not None else [row["asked_steps"], row["task"]]
        parts.setdefault(json.dumps(apart, sort_keys=True), []).append(row)
    return " && ".join(dict.fromkeys(_of_alike(part) for part in parts.values()))


def _of_alike(rows: Sequence[Row]) -> str:
    first = rows[0]
    given: list[str] = []
    methods = ",".join(dict.fromkeys(_written(row["method"], row["options"]) for row in rows))
    training = dict(first["training"])
    task = first["task"]
    if first["samples"] is not None:
        over = "depth" if first["depth"] is not None else "steps" if first["asked_steps"] is not None else "length"
        column = "depth" if over == "depth" else "asked_steps"
        if over == "length":
            values = sorted({int(found[1]) for row in rows if (found := LENGTH.search(row["task"]))})
            task = LENGTH.sub("", task).replace("[]", "")
        else:
            values = sorted({row[column] for row in rows})
        values = values if len(values) > 1 else [values[0], 2 * values[0]] if values else []
        given += ["scale", "-t", task, "-m", methods, "--over", over, "--values", ",".join(map(str, values))]
        training = {name: value for name, value in training.items() if (name, value) != ("epochs", 1)}
    else:
        asked = first["asked_steps"]
        given += ["run", "-t", task, "-m", methods, *(["-T", str(asked)] if asked is not None else [])]
        given += ["--probe", ",".join(first["probes"])] if first["probes"] else []
    given += ["--seeds", str(1 + max(row["seed"] for row in rows))]
    given += [part for name, value in sorted(training.items()) for part in ("--set", f"{name}={_setting(value)}")]
    given += ["--budget", first["budget"]] if first["budget"] != "smoke" else []
    given += ["--track", first["track"]] if first["track"] != "matched" else []
    given += ["--threads", str(first["threads"])] if first["threads"] != 1 or first["budget"] != "smoke" else []
    given += ["--device", first["asked_device"]] if first["asked_device"] != "cpu" else []
    given += ["--precision", first["precision"]] if first["precision"] != "fp32" else []
    return shlex.join(["spikebench", *given])


def to_measure(claim: Claim, label: str) -> str:
    """Return what would measure a claim that no runs are there for: as claimed where it names a task, else on embedded data."""
    expected = EXPECTED.fullmatch(claim.expect) if claim.expect else None
    task = "static/digits" if claim.task == "any" else claim.task
    steps, paired = claim.steps[0], reading_of(claim) != "value"
    if expected and expected["growth"] and expected["over"] in SWEEPS:
        values = ",".join(map(str, SWEEPS[expected["over"]]))
        return shlex.join(["spikebench", "scale", "-t", task, "-m", label, "--over", expected["over"], "--values", values])
    if claim.task == "any" and steps is not None and steps > LONG:
        given = ["--over", "length", "--values", f"{steps // 2},{steps}", "--device", "cuda"]
        return shlex.join(["spikebench", "scale", "-t", "sequences/adding", "-m", f"{label},{claim.against or ''}".rstrip(","), *given])
    labels = [_with(label, claim.networks[:1]), *([_with(claim.against, claim.networks[-1:])] if paired and claim.against else [])]
    if expected and expected["growth"]:
        labels = [_with(label, [f"{expected['over']}={value}"]) for value in (1, 4, 8)]
    at = {each.partition("@T=")[2] for each in labels if "@T=" in each}
    labels = [each.partition("@T=")[0] for each in labels]
    given = []
    if steps is not None and task.startswith("events/"):
        task = f"{task}[steps={steps}]"
    elif (steps is not None and task.startswith("static/")) or len(at) == 1:
        given = ["-T", str(steps if steps is not None else at.pop())]
    given += ["--seeds", "3"]
    if claim.task != "any":
        given += ["--budget", "paper"] + ([] if paired else ["--track", "recipe"]) + ["--device", "cuda"]
    elif claim.metric == "cuda_bytes" or timed(METRICS[claim.metric]):
        given += ["--device", "cuda"]
    if claim.figure.startswith("probes."):
        given += ["--probe", claim.figure.split('"')[1] if '"' in claim.figure else claim.figure.split(".")[1]]
    return shlex.join(["spikebench", "run", "-t", task, "-m", ",".join(dict.fromkeys(labels)), *given])


def _with(label: str, networks: Iterable[str]) -> str:
    """Return a label with further options."""
    variant, at, steps = label.partition("@")
    name, options = parse_variant(variant)
    inside = [*(f"{key}={value}" for key, value in options.items()), *(text for text in networks if text)]
    return name + (f"[{','.join(inside)}]" if inside else "") + at + steps


def _written(method: str, options: dict[str, str]) -> str:
    inside = ",".join(f"{name}={value}" for name, value in sorted(options.items()))
    return method + (f"[{inside}]" if inside else "")


def _setting(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else written(value)
