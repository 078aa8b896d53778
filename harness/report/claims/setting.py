"""What of a paper's setting a group of runs is not: if nothing, its claim is measured as claimed, else elsewhere.

A claim of any task about what follows from the algorithm alone (``STRUCTURAL``: bytes saved, parameters, ...) is measured as claimed
wherever it is measured. What depends on learning needs the budget ``paper``, and times and bytes of the CUDA allocator need CUDA.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.metrics import METRICS, Metric, as_task_metric
from harness.plugin import Claim
from harness.report.claims.pairing import Group, Row
from harness.spec import parse_settings, parse_variant, split_list

STRUCTURAL = (
    "saved_bytes",
    "parameters",
    "parameter_bytes",
    "optimizer_bytes",
    "storage_bits",
    "steps_used",
    "synops_dense",
    "state_bytes",
)


WHOLE = ("total_time", "target_time", "loading_time", "measuring_time")  # of whole runs: start and evaluation are in them
SIZE = 1.5  # times as many parameters from which networks are no match


def timed(metric: Metric) -> bool:
    """Return whether a metric is a time, or is made of times."""
    return metric.unit in ("s", "samples/s")


def structural(claim: Claim, metric: Metric) -> bool:
    """Return whether what is claimed follows from the algorithm, whatever was learnt: a structural metric, or a bound never exceeded."""
    return claim.expect.startswith(("at most", "equal")) or (metric.name in STRUCTURAL and not claim.figure)


def on_task(claim: Claim, group: Group) -> bool:
    """Return whether the group is of the task of the claim, whatever that task's options."""
    return claim.task in ("any", parse_variant(group.rows[0]["task"], "task")[0])


def usable(claim: Claim, metric: Metric, group: Group) -> bool:
    """Return whether a group can measure a claim at all.

    Runs of ``spikebench scale``, cut to a few batches, learn next to nothing. What is no share on one task (an error, a perplexity) says
    nothing about shares on another.
    """
    row = group.rows[0]
    own = claim.task != "any" and on_task(claim, group)
    if metric.name == "test_accuracy" and not claim.figure and not own and as_task_metric(metric, row["measure"] or "").unit != "fraction":
        return False
    return row["samples"] is None or structural(claim, metric) or (timed(metric) and metric.name not in WHOLE)


def differences(claim: Claim, metric: Metric, group: Group, against: str | None = None) -> list[str]:
    """Return what of the claim's setting the group is not, one phrase each. ``against``: what it was compared with."""
    row = group.rows[0]
    found = [] if against in (None, claim.against) else [f"{against} in place of {claim.against}"]
    if metric.name != claim.metric:
        found.append(f"{metric.title} in place of {METRICS[claim.metric].title}")
    if not on_task(claim, group):
        found.append(f"{row['task']} in place of {claim.task}")
    if not (claim.task == "any" and structural(claim, metric)):
        found += [f"{row['budget']} budget"] if row["budget"] != "paper" else []
        found += [f"{name}={value}" for name, value in sorted(row["training"].items())]
    if claim.kind == "value" and row["track"] != "recipe":
        found.append("matched track in place of its own recipe")
    if metric.name == "cuda_bytes" or timed(metric):
        found += [] if row["kind"] == "cuda" else [f"on {row['kind']}"]
    wanted = claim.steps
    if wanted[0] is not None:
        found += [f"T={row['steps']} in place of {wanted[0]}"] if row["steps"] != wanted[0] else []
    if wanted[1] is not None and group.others and group.others[0]["steps"] != wanted[1]:
        found.append(f"T={group.others[0]['steps']} in place of {wanted[1]} on the other side")
    networks = [parse_settings(split_list(text)) for text in claim.networks]
    if any(not _has(side, given) for side, given in zip((row, *group.others[:1]), (*networks, *networks[-1:]), strict=False)):
        found.append("another network")
    extra = {name: value for name, value in group.surplus.items() if not any(name in given for given in networks)}
    if extra:
        found.append("with " + ", ".join(f"{name}={value}" for name, value in sorted(extra.items())))
    return found


def same_size(claim: Claim, metric: Metric, group: Group) -> bool:
    """Return whether the networks of both sides have about as many parameters, where that matters: for what depends on learning."""
    if timed(metric) or structural(claim, metric):
        return True
    for one, other in zip(group.rows, group.others, strict=False):
        mine, theirs = one["learned"], other["learned"]
        if mine and theirs and max(mine, theirs) > SIZE * min(mine, theirs):
            return False
    return True


def _has(row: Row, network: Mapping[str, str]) -> bool:
    resolved = {**row["resolved"], **row["options"]}
    return all(str(resolved.get(name)).lower() == value.lower() for name, value in network.items())
