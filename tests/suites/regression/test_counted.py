"""Costs are counted exactly: closed forms of what a call allocates, keeps and saves."""

from __future__ import annotations

import math

import pytest
import torch

from methods.nn import native
from suites.regression.cores import MAKERS, SHAPE, Core
from suites.regression.counted import counted


def test_each_operator_and_each_byte_is_counted():
    cost = counted(lambda: torch.empty(1000).fill_(1.0))
    assert (cost.operators, cost.allocated_bytes, cost.kept_bytes, cost.saved_bytes) == (2, 4000, 0, 0)


def test_what_piles_up_is_seen():
    pile = []
    assert counted(lambda: pile.append(torch.empty(256))).kept_bytes == 1024


def test_what_replaces_its_like_is_not_kept():
    held = {}
    assert counted(lambda: held.update(grad=torch.empty(256))).kept_bytes == 0


def test_what_the_backward_pass_needs_is_saved():
    x = torch.randn(100, requires_grad=True)
    y = torch.randn(100)
    assert counted(lambda: (x.exp() * y).sum().backward()).saved_bytes == 2 * 400  # exp keeps its result, the product y


@pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")
@pytest.mark.parametrize("steps", [4, 16])
def test_a_layer_of_lif_allocates_spikes_potentials_and_a_gradient(steps):
    core = Core("lif", steps)
    size = 4 * steps * math.prod(SHAPE)
    cost = counted(core.both_ways, core.neuron)
    assert cost.allocated_bytes == 3 * size + 8  # and the number of spikes, one int64
    assert cost.saved_bytes == size


@pytest.mark.parametrize("name", MAKERS)
def test_a_core_gives_gradients_of_currents_and_parameters(name):
    core = Core(name, 3)
    currents, *learnt = core.both_ways()
    assert currents.shape == (3, *SHAPE) and currents.abs().sum() > 0
    assert len(learnt) == len(list(core.neuron.parameters()))
    assert 0 < core.spikes < currents.numel()
