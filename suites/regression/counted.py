"""What a call costs, counted and not timed: operators, bytes allocated, bytes left behind, bytes saved for the backward pass.

    cost = counted(ready.train, ready.net)
    cost.operators, cost.allocated_bytes, cost.kept_bytes, cost.saved_bytes

The call is made several times and must do the same each time. Operators are the calls of PyTorch's operators and of ours, those that an
operator or a kernel of ours makes itself included; bytes are those of PyTorch's CPU allocator, of which a kernel's own scratch memory is no
part. All follow from the code, the version of torch and the kernels in use: no load of the machine changes them.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile

from harness.meters.memory import SavedTensors

WARM_UP = 1  # calls after which gradients, the optimiser's state and caches are there
OPERATOR = re.compile(r"\w+::\w+")  # aten::add; a node of the graph has another name


@dataclass(frozen=True)
class Cost:
    """What one call costs. ``kept_bytes`` are allocated and not freed when it has ended: 0, unless something piles up."""

    operators: int
    allocated_bytes: int
    kept_bytes: int
    saved_bytes: int


def counted(call: Callable[[], object], net: nn.Module | None = None) -> Cost:
    """Return the cost of ``call`` on the CPU once it is warm; parameters and buffers of ``net`` are not counted as saved."""
    for _ in range(WARM_UP):
        call()
    with SavedTensors(net) as saved:
        call()
    _events(call)  # the profiler knows the size of what is freed only if it has seen it made
    events = _events(call)
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return Cost(
        operators=sum(OPERATOR.fullmatch(event.name()) is not None for event in events),
        allocated_bytes=sum(size for size in sizes if size > 0),
        kept_bytes=sum(sizes),
        saved_bytes=saved.peak,
    )


def _events(call: Callable[[], object]) -> list[Any]:
    gc.collect()  # what earlier calls left in cycles would be freed within this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
        gc.collect()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    return profiler.profiler.kineto_results.events()
