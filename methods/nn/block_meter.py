"""What training each block really saves and takes, beside the model of ``methods.nn.block_costs``."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from harness.meters.memory import SavedTensors
from methods.nn.conditional import BlockNet, features
from methods.nn.synapse import Linear

REPEATS = 2  # of which the faster counts


def measure_training(
    net: BlockNet, batches: Sequence[tuple[Tensor, Tensor]], loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float | list[float]]:
    """Return bytes saved and seconds taken by a training step of each block, and of all blocks end to end with one read-out.

    ``batches``: for each block, inputs ``[T, B, ...]`` and the places of their classes in the block's classifier ``[B]``; the first serves
    the end-to-end network. ``net`` stays as it is: a copy runs. Per block ``saved_block``, ``step_seconds`` (forward and backward pass,
    the frozen blocks included) and ``frozen_seconds``, what the frozen blocks alone take, as they run again for every batch;
    ``saved_end_to_end``, ``step_seconds_end_to_end``; ``saved_efficiency_block`` and ``saved_efficiency``, end-to-end bytes over those of
    each and of the largest block.
    """
    net = copy.deepcopy(net)
    gc.freeze()  # the meter collects garbage; what is there already need not be looked through each time
    saved, steps, frozen = [], [], []
    for depth, (x, places) in enumerate(batches):
        net.eval()
        net.blocks[depth].train()

        def inputs(x: Tensor = x, depth: int = depth) -> Tensor:
            with torch.no_grad():
                return net.spikes(x, depth)

        def step(depth: int = depth, inputs: Callable[[], Tensor] = inputs, places: Tensor = places) -> None:
            loss(net.classifiers[depth](features(net.blocks[depth](inputs()))), places).backward()

        saved.append(_saved(net, step))
        steps.append(_seconds(step, x.device))
        frozen.append(_seconds(inputs, x.device) if depth else 0.0)
    net.train()
    x, places = batches[0]
    readout = Linear(net.sizes[len(batches) - 1], net.labels).to(x.device, next(net.parameters()).dtype)
    whole = nn.ModuleList([net, readout])

    def end_to_end() -> None:
        loss(readout(features(net.spikes(x, len(batches)))), places).backward()

    total = _saved(whole, end_to_end)
    gc.unfreeze()
    return {
        "saved_block": saved,
        "saved_end_to_end": total,
        "saved_efficiency_block": [total / own for own in saved],
        "saved_efficiency": total / max(saved),
        "step_seconds": steps,
        "frozen_seconds": frozen,
        "step_seconds_end_to_end": _seconds(end_to_end, x.device),
    }


def _saved(net: nn.Module, step: Callable[[], None]) -> float:
    with SavedTensors(net) as meter:
        step()
    return float(meter.peak)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    found = []
    for _ in range(REPEATS):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        found.append(time.perf_counter() - started)
    return min(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
