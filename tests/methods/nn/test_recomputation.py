"""Figures of the run backwards, on sequences whose errors are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.neuron import LIF
from methods.nn.recomputation import recomputation
from methods.nn.reversible import ReversibleBlock, ReversibleSequence


class Forgetful(nn.Module):
    """Adds the current that its first call, but none that a later one, has."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.neuron = 0, LIF(0.0, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.neuron(torch.full_like(x, float(self.calls == 1)))


class Silent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_spikes_that_are_left_out_and_the_error_they_make_are_found():
    net = ReversibleSequence([ReversibleBlock(Forgetful(), Silent()), ReversibleBlock(Silent(), Silent())])
    x = torch.full((2, 3, 4), 4.0)
    assert recomputation(net, lambda copy: copy(x, x)) == {"reconstruction_error": [1 / 4], "spike_flip_rate": [1.0]}


def test_exact_sums_leave_no_error():
    net = ReversibleSequence([ReversibleBlock(LIF(0.0, 0.5), LIF(0.0, 0.5))])
    x = torch.randint(-2, 3, (2, 3, 4), generator=torch.Generator().manual_seed(0)).float()
    assert recomputation(net, lambda copy: copy(x, x)) == {"reconstruction_error": [0.0], "spike_flip_rate": [0.0]}


def test_sequences_without_blocks_have_no_figures():
    x = torch.zeros(1, 1, 2)
    assert recomputation(ReversibleSequence([]), lambda copy: copy(x, x)) == {"reconstruction_error": [], "spike_flip_rate": []}
