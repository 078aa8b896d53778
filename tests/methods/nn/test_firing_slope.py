"""The derivative that stands for the spike's, asked of neurons of every kind, against their written equations."""

from __future__ import annotations

import pytest
import torch

from methods.nn.attentive_lif import AttentiveLIF
from methods.nn.firing_slope import firing_slope
from methods.nn.glif import GLIF
from methods.nn.lif_step import at_rest, reset, step
from methods.nn.neuron import LIF
from methods.nn.psn import PSN, SlidingPSN
from methods.nn.surrogate import Arctan, Rectangle, Triangle
from methods.nn.turn_off import TurnOff

T, B, C = 5, 3, 4


def currents(*shape: int) -> torch.Tensor:
    return 1.2 * torch.randn(T, B, *shape or (C,), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3


def by_hand(x: torch.Tensor, leak: float, kind: str, surrogate, theta: float = 1.0) -> torch.Tensor:
    """Surrogate at every potential of the reference step."""
    state, found = at_rest(x[0], 0.0, 0), []
    for now in x:
        found.append(surrogate(leak * state[0] + now - theta))
        _, state = step(state, now, leak, theta, lambda u, s: reset(u, s, theta, kind), surrogate)
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("surrogate", [Rectangle(), Triangle(), Arctan()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("detach", [False, True])
def test_that_of_lif_is_the_surrogate_at_its_potential(kind, backend, surrogate, detach):
    neuron = LIF(0.7, reset=kind, surrogate=surrogate, backend=backend, detach_reset=detach)
    found = firing_slope(neuron, currents())
    torch.testing.assert_close(found, by_hand(currents(), 0.7, kind, surrogate), rtol=1e-12, atol=1e-15)
    assert (found == 0).any() == (not isinstance(surrogate, Arctan))


def test_a_scaled_input_scales_it():
    found = firing_slope(LIF(0.5, scale_input=True, surrogate=Rectangle()), currents())
    torch.testing.assert_close(found, 0.5 * by_hand(0.5 * currents(), 0.5, "hard", Rectangle()), rtol=1e-12, atol=0)


def test_that_of_a_gated_neuron_is_zero_where_its_potential_is_outside_the_window():
    neuron = GLIF(T, C, backend="reference").double()
    inside = (neuron.potentials(currents()) - neuron.values().vth).abs() < 0.5
    assert torch.equal(firing_slope(neuron, currents()) != 0, inside)


def test_that_of_an_attentive_neuron_is_the_same_for_both_backends():
    torch.manual_seed(0)
    neuron = AttentiveLIF(C, backend="reference").double()
    x = currents(C, 2, 2)
    wanted = firing_slope(neuron, x)
    assert 0 < (wanted == 0).double().mean() < 1
    neuron.backend = "auto"
    torch.testing.assert_close(firing_slope(neuron, x), wanted)


def test_that_of_a_turn_off_neuron_is_its_window():
    x = currents()
    assert torch.equal(firing_slope(TurnOff(), x) != 0, (x >= -1e-4) & (x <= 1 + 1e-4))


@pytest.mark.parametrize("neuron", [PSN(T), SlidingPSN(2)], ids=["psn", "sliding"])
def test_that_of_a_parallel_neuron_is_the_surrogate_at_the_potential_it_shows(neuron):
    neuron = neuron.double()
    assert torch.equal(firing_slope(neuron, currents()), neuron.surrogate(neuron.charge(currents())))


def test_nothing_is_carried_or_left_behind():
    neuron = LIF()
    x = currents()
    before = neuron(x)
    firing_slope(neuron, x)
    assert neuron.carried() is None
    assert torch.equal(neuron(x), before)


def test_an_output_without_a_graph_has_none():
    class Silent(torch.nn.Module):
        def forward(self, x):
            return (x > 0).to(x.dtype)

    assert firing_slope(Silent(), currents()) is None
