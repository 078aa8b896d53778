"""A neuron with gates (GLIF), written three ways: a plain loop, our compiled backend, and SpikingJelly's ``GatedLIFNode``.

Leak, input and reset each mix two variants by a gate that is learnt, with all membrane constants, for every channel; the input is also
weighed at every step. In the symbols below all of ``al be ga tau vth leak revth [C]`` and ``g [T, C]`` are sigmoids of parameters::

    u[t] = (1 - al (1 - tau)) u[t-1] (1 - ga s[t-1]) - (1 - al) leak + x[t] (1 - be (1 - g[t])) - (1 - ga) revth s[t-1]
    s[t] = H(u[t] - vth)

No hand-written kernel knows it: it shows what a new neuron costs. Source: "GLIF: A Unified Gated Leaky Integrate-and-Fire Neuron for
Spiking Neural Networks" (Yao et al., NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from methods.nn.compiled import Compiled, State
from methods.nn.surrogate import Arctan, spike
from suites.regression.peers.timing import Columns, agree, interleave, seconds

SHAPE = (32, 16, 16, 16)  # batch, channels, height, width: 32 x 4096 neurons
ALPHA = 2.0
NAMES = ("alpha", "beta", "gamma", "tau", "v_threshold", "linear_decay", "v_subreset")


def step(state: State, now: Tensor, al: Tensor, ga: Tensor, tau: Tensor, vth: Tensor, leak: Tensor, revth: Tensor) -> tuple[Tensor, State]:
    """Return spikes and state after one step; the gate of the input has been applied."""
    u, s = state
    u = (1 - al * (1 - tau)) * u * (1 - ga * s) - (1 - al) * leak + now - (1 - ga) * revth * s
    s = spike(u - vth, Arctan(ALPHA))
    return s, (u, s)


class GLIF(nn.Module):
    """GLIF, by a plain loop or compiled: ``[T, B, C, H, W] -> [T, B, C, H, W]``."""

    def __init__(self, steps: int, channels: int, compiled: bool) -> None:
        """Make it with random gates and the paper's constants."""
        super().__init__()
        constants = torch.tensor([0.25, 0.5, 0.5 / (2 * steps), 0.5]).logit()
        self.logits = nn.Parameter(torch.cat([torch.randn(3, channels) / 10, constants[:, None].expand(4, channels)])[..., None, None])
        self.conductance = nn.Parameter(torch.zeros(steps, channels, 1, 1))
        self.compiled = Compiled(step) if compiled else None

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes."""
        al, be, ga, *others = self.logits.sigmoid().unbind(0)
        current = current * (1 - be * (1 - self.conductance.sigmoid())).unsqueeze(1)
        state = (torch.zeros_like(current[0]), torch.zeros_like(current[0]))
        if self.compiled is not None:
            return self.compiled(current, state, (al, ga, *others))[0]
        spikes = []
        for now in current.unbind(0):
            s, state = step(state, now, al, ga, *others)
            spikes.append(s)
        return torch.stack(spikes)


def spikingjelly(ours: GLIF, steps: int, channels: int) -> nn.Module:
    """Return SpikingJelly's neuron with the parameters of ours; it is to be reset before each call."""
    from spikingjelly.activation_based import neuron, surrogate

    node = neuron.GatedLIFNode(steps, channels, surrogate_function=surrogate.ATan(ALPHA))
    with torch.no_grad():
        for name, logits in zip(NAMES, ours.logits, strict=True):
            getattr(node, name).copy_(logits[:, 0, 0])
        node.conduct.copy_(ours.conductance[:, :, 0, 0])
    return node


def measure(steps: int, rounds: int, device: str, size: float = 1.0) -> tuple[list[str], Columns]:
    """Return the names of the forms and their times, forward and backward; ``size`` is the fraction of the batch.

    Spikes and the gradient of the current are compared before. Raises RuntimeError when they differ.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (steps, max(1, int(SHAPE[0] * size)), *SHAPE[1:])
    current, g = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    loop, compiled = (GLIF(steps, SHAPE[1], compiled).to(device) for compiled in (False, True))
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
