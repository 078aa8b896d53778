"""The linear recurrence ``h[t] = a h[t-1] + b[t]`` three ways: ours, PyTorch operation by operation, and an FFT convolution.

A constant decay ``a [C]``, inputs ``b [T, 1, C]``, forward and backward with the gradients of both. The convolution of b with the powers of
a, padded to twice its length, is what is often done for long sequences.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from methods.nn.recurrence import recurrence
from suites.regression.peers.timing import Columns, interleave, seconds

CHANNELS = 1024
LENGTHS = (1024, 4096, 16384)


def convolution(a: Tensor, b: Tensor) -> Tensor:
    """Return ``h [T, B, C]`` of ``a [C]`` in (0, 1) and ``b [T, B, C]``, by the fast Fourier transform over time."""
    steps = len(b)
    powers = torch.exp(torch.arange(steps, device=b.device)[:, None, None] * a.log())
    product = torch.fft.rfft(powers, 2 * steps, dim=0) * torch.fft.rfft(b, 2 * steps, dim=0)
    return torch.fft.irfft(product, 2 * steps, dim=0)[:steps]


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "recurrence, ours": lambda a, b: recurrence(a, b)[0],
    "recurrence, PyTorch loop": lambda a, b: recurrence(a, b, backend="reference")[0],
    "recurrence, FFT": convolution,
}


def measure(steps: int, rounds: int, device: str, channels: int = CHANNELS) -> tuple[list[str], Columns]:
    """Return the names of the ways and their times; raise RuntimeError when their results differ."""
    generator = torch.Generator().manual_seed(0)
    b, g = (torch.randn(steps, 1, channels, generator=generator).to(device) for _ in range(2))
    a = torch.empty(channels).uniform_(0.5, 0.95, generator=generator).to(device)

    def prepared(way: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
        def run() -> tuple[Tensor, Tensor]:
            leaves = a.detach().requires_grad_(), b.detach().requires_grad_()
            h = way(*leaves)
            return h.detach(), torch.autograd.grad(h, leaves, g)[1]

        return run

    runs = [prepared(way) for way in WAYS.values()]
    expected = runs[1]()
    first = []
    for name, run in zip(WAYS, runs, strict=True):
        first.append(seconds(run, device))
        found, gradient = run()
        if not torch.allclose(found, expected[0], rtol=1e-4, atol=1e-4) or not torch.allclose(gradient, expected[1], rtol=1e-4, atol=1e-4):
            raise RuntimeError(f"{name} differs from the loop by {(found - expected[0]).abs().max().item():.1e}")
    return list(WAYS), {f"recurrence, T={steps}": (first, interleave(runs, rounds, device))}
