"""Max pooling of spikes: nothing is lost by lateral inhibition, whatever the window; a gate loses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.lateral_pool import LIPool2d, RateGate2d
from methods.nn.stepping import stepping

WINDOWS = [(2, 2, 0, False), (3, 2, 1, False), (3, 1, 1, False), (3, 2, 0, True), (5, 1, 2, False), (2, 1, 0, False)]


def spikes(signed: bool, steps: int = 20) -> Tensor:
    torch.manual_seed(3)
    return torch.randint(-3 if signed else 0, 4, (steps, 2, 3, 8, 8)).float()


def lossless(pool: nn.Module, x: Tensor, window: tuple[int, int, int, bool]) -> list[bool]:
    """Whether the summed output is the pooled summed input, step by step."""
    wanted = F.max_pool2d(x.cumsum(0).flatten(0, 1), *window[:3], ceil_mode=window[3]).unflatten(0, x.shape[:2])
    return [torch.equal(a, b) for a, b in zip(pool(x).cumsum(0), wanted, strict=True)]


def module(kind: type, window: tuple[int, int, int, bool]) -> nn.Module:
    return kind(nn.MaxPool2d(*window[:3], ceil_mode=window[3]))


# Card, tests 1 and 2


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_summed_output_is_the_pooled_summed_input_at_every_step(window, signed):
    assert all(lossless(module(LIPool2d, window), spikes(signed), window))


@pytest.mark.parametrize("window", WINDOWS)
def test_the_rate_gate_loses_spikes(window):
    assert not all(lossless(module(RateGate2d, window), spikes(False), window))


@pytest.mark.parametrize("window", [w for w in WINDOWS if w[2]])
def test_padding_with_zeros_would_not_do_for_signed_spikes(window):
    kernel, stride, padding, ceil = window

    def padded_with_zeros(x: Tensor) -> Tensor:
        return LIPool2d(nn.MaxPool2d(kernel, stride, 0, ceil_mode=ceil))(F.pad(x, [padding] * 4))

    assert not all(lossless(padded_with_zeros, -spikes(False), window))
    assert all(lossless(module(LIPool2d, window), -spikes(False), window))


# The two forms, and what the gate passes


@pytest.mark.parametrize("window", WINDOWS)
def test_lateral_inhibition_as_it_is_told_gives_the_same(window):
    kernel, stride, padding, _ = window
    x = spikes(True)
    x = x if not window[3] else F.pad(x, (0, 1, 0, 1), value=-torch.inf)  # the last window is cut
    wanted, z = [], 0.0
    for now in x:
        filled = F.pad(now, [padding] * 4, value=-torch.inf)
        windows = filled.unfold(2, kernel, stride).unfold(3, kernel, stride)
        z = z + windows
        out = z.amax((-2, -1))
        z = z - out[..., None, None]
        wanted.append(out)
    assert torch.equal(module(LIPool2d, window)(spikes(True)), torch.stack(wanted))


def test_the_gate_passes_the_neuron_with_the_highest_count():
    x = torch.zeros(3, 1, 1, 2, 2)
    x[0, 0, 0, 0, 1] = 1
    x[1, 0, 0] = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    x[2, 0, 0, 0, 1] = 4
    assert RateGate2d(nn.MaxPool2d(2))(x).flatten().tolist() == [1, 2, 4]


@pytest.mark.parametrize("kind", [LIPool2d, RateGate2d])
def test_single_steps_are_the_whole_run(kind):
    pool, x = kind(nn.MaxPool2d(3, 2, 1)), spikes(False)
    with stepping(pool):
        singly = torch.cat([pool(now[None]) for now in x])
    assert torch.equal(singly, pool(x))


@pytest.mark.parametrize("split", [0, 2])
def test_gradients_pass_as_through_pooling_of_sums(split):
    torch.manual_seed(0)
    x = torch.randn(5, 2, 3, 6, 6, requires_grad=True)
    pool, weight = LIPool2d(nn.MaxPool2d(2)), torch.randn(5, 2, 3, 3, 3)
    with stepping(pool):
        parts = x.split(split) if split else (x,)
        out = torch.cat([pool(part) for part in parts])
    sums = nn.functional.max_pool2d(x.cumsum(0).flatten(0, 1), 2).unflatten(0, (5, 2))
    wanted = torch.cat([sums[:1], sums[1:] - sums[:-1]])
    torch.testing.assert_close(out, wanted)
    for found, reference in zip(torch.autograd.grad((out * weight).sum(), x), torch.autograd.grad((wanted * weight).sum(), x), strict=True):
        torch.testing.assert_close(found, reference)
