"""What of a paper's setting a group of runs is not: if nothing, its claim is measured as claimed, else elsewhere.

A claim of any task about what follows from the algorithm alone (``STRUCTURAL``: bytes saved, parameters, ...) is measured as claimed
wherever it is measured. What depends on learning needs the budget ``paper``, and times and bytes of the CUDA allocator need CUDA.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.metrics import METRICS, Metric
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


def timed(metric: Metric) -> bool:
    """Return whether a metric is a time, or is made of times."""
    return metric.unit in ("s", "samples/s")


def differences(claim: Claim, metric: Metric, group: Group) -> list[str]:
    """Return what of the claim's setting the group is not, one phrase each."""
    row = group.rows[0]
    found = []
    if metric.name != claim.metric:
        found.append(f"{metric.title} in place of {METRICS[claim.metric].title}")
    task = parse_variant(row["task"], "task")[0]
    if claim.task not in ("any", task):
        found.append(f"{task} in place of {claim.task}")
    structural = claim.task == "any" and metric.name in STRUCTURAL and not claim.figure
    if row["budget"] != "paper" and not structural:
        found.append(f"{row['budget']} budget")
    if claim.kind == "value" and row["track"] != "recipe":
        found.append("matched track in place of its own recipe")
    if metric.name == "cuda_bytes" or timed(metric):
        found += [] if row["kind"] == "cuda" else [f"on {row['kind']}"]
    wanted = claim.steps
    if wanted[0] is not None:
        found += [f"T={row['steps']} in place of {wanted[0]}"] if row["steps"] != wanted[0] else []
        if group.others and "@T=" not in (claim.against or "") and group.others[0]["steps"] != wanted[1]:
            found.append(f"T={group.others[0]['steps']} in place of {wanted[1]} on the other side")
    networks = [parse_settings(split_list(text)) for text in claim.networks]
    if any(not _has(side, given) for side, given in zip((row, *group.others[:1]), (*networks, *networks[-1:]), strict=False)):
        found.append("another network")
    extra = {name: value for name, value in group.surplus.items() if not any(name in given for given in networks)}
    if extra:
        found.append("with " + ", ".join(f"{name}={value}" for name, value in sorted(extra.items())))
    return found


def _has(row: Row, network: Mapping[str, str]) -> bool:
    resolved = {**(row["resolved"] or {}), **row["options"]}
    return all(str(resolved.get(name)).lower() == value.lower() for name, value in network.items())
