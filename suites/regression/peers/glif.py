"""A neuron with gates (GLIF, ``methods.nn.glif``), run three ways: a plain loop, our compiled backend, SpikingJelly's ``GatedLIFNode``.

No hand-written kernel knows it: it shows what a new neuron costs. Surrogate and threshold are SpikingJelly's: arctan, and spikes at it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from methods.nn.glif import GLIF, Backend, Start
from methods.nn.surrogate import Arctan
from suites.regression.peers.timing import Columns, agree, interleave, seconds

SHAPE = (32, 16, 16, 16)  # batch, channels, height, width: 32 x 4096 neurons
ALPHA = 2.0
NAMES = ("alpha", "beta", "gamma", "tau", "v_threshold", "linear_decay", "v_subreset")  # gates, then constants


def ours(steps: int, channels: int, backend: Backend) -> GLIF:
    """Return our neuron with random gates and SpikingJelly's surrogate."""
    start = Start(leak=0.5 / (2 * steps), gates=None)
    return GLIF(steps, channels, start, surrogate=Arctan(ALPHA), strict=False, backend=backend)


def spikingjelly(ours: GLIF, steps: int, channels: int) -> nn.Module:
    """Return SpikingJelly's neuron with the parameters of ours; it is to be reset before each call."""
    from spikingjelly.activation_based import neuron, surrogate

    node = neuron.GatedLIFNode(steps, channels, surrogate_function=surrogate.ATan(ALPHA))
    with torch.no_grad():
        for name, logits in zip(NAMES, (*ours.gates, *ours.constants), strict=True):
            getattr(node, name).copy_(logits)
        node.conduct.copy_(ours.conductance)
    return node


def measure(steps: int, rounds: int, device: str, size: float = 1.0) -> tuple[list[str], Columns]:
    """Return the names of the forms and their times, forward and backward; ``size`` is the fraction of the batch.

    Spikes and the gradient of the current are compared before. Raises RuntimeError when they differ.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (steps, max(1, int(SHAPE[0] * size)), *SHAPE[1:])
    current, g = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    loop, compiled = ours(steps, SHAPE[1], "reference").to(device), ours(steps, SHAPE[1], "compiled").to(device)
    compiled.load_state_dict(loop.state_dict())
    forms: dict[str, nn.Module] = {"GLIF compiled": compiled, "GLIF plain loop": loop}
    with suppress(ImportError):
        forms["GLIF SpikingJelly"] = spikingjelly(loop, steps, SHAPE[1]).to(device)
    runs = [forward_backward(form, current, g) for form in forms.values()]
    expected = runs[1]()
    first = []
    for name, run in zip(forms, runs, strict=True):
        first.append(seconds(run, device))
        agree(name, run(), expected)
    return list(forms), {f"GLIF, T={steps}": (first, interleave(runs, rounds, device))}


def forward_backward(form: nn.Module, current: Tensor, g: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a call that goes forward and backward, with the gradients of the parameters; it returns spikes and that of the current."""
    reset: Any = getattr(form, "reset", lambda: None)
    parameters = list(form.parameters())

    def run() -> tuple[Tensor, Tensor]:
        reset()
        leaf = current.detach().requires_grad_()
        spikes = form(leaf)
        return spikes.detach(), torch.autograd.grad(spikes, [leaf, *parameters], g)[0]

    return run
