"""State carried from step to step, against sums over layers."""

import pytest

from harness.registry import Registries
from harness.runner import state_bytes
from methods.nn.synapse import DelayLine
from methods.psn import Psn
from methods.stbp import Stbp

REGISTRIES = Registries()


def state_of(kind, task, **options):
    method = kind(REGISTRIES.task(task), options)
    net = method.build().eval()
    return state_bytes(method, net), net


def test_delays_carry_the_inputs_that_are_still_to_come():
    found, net = state_of(Stbp, "sequences/digits-pixels")
    lines = [module for module in net.modules() if isinstance(module, DelayLine)]
    potentials = sum(line.conv.out_channels for line in lines)
    assert found == 4 * (potentials + sum(line.past * line.conv.in_channels for line in lines))


def test_a_sliding_neuron_carries_the_currents_of_its_window_and_a_full_one_cannot_take_single_steps():
    found, _ = state_of(Psn, "static/digits", variant="sliding", order=3)
    assert found == 2 * state_of(Stbp, "static/digits")[0]  # the two currents before this one, where LIF has a potential
    assert state_of(Psn, "static/digits")[0] is None


@pytest.mark.parametrize("task", ["static/digits", "events/digits-saccade"])
def test_state_does_not_depend_on_the_length(task):
    method = Stbp(REGISTRIES.task(task), {}, steps=8)
    assert state_bytes(method, method.build().eval()) == state_of(Stbp, task)[0]
