"""LIF neurons that have a leak and a threshold each: every backend against a loop, in every layout."""

from __future__ import annotations

import pytest
import torch

from methods.nn import native
from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan

DOUBLE = torch.float64
SHAPE = (3, 4, 5)
BACKENDS = [
    "reference",
    pytest.param("native", marks=pytest.mark.skipif(not native.available(torch.float32), reason="no native kernels")),
    "compiled",
]
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels-last": lambda x: x.movedim(2, -1).contiguous().movedim(-1, 2),
    "batch innermost": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "the same at every step": lambda x: x[:1].movedim(2, -1).contiguous().movedim(-1, 2).expand(x.shape),
}


def neuron(backend: str, dtype: torch.dtype = DOUBLE, **options) -> LIF:
    """A neuron whose thresholds and leaks all differ."""
    lif = LIF(0.5, 1.0, detach_reset=False, surrogate=Arctan(2.0), learn=("leak", "threshold"), channels=SHAPE, backend=backend, **options)
    lif = lif.to(dtype)
    with torch.no_grad():
        draws = torch.Generator().manual_seed(1)
        lif.threshold.add_(torch.rand(SHAPE, generator=draws, dtype=dtype))
        lif.leak_logit.add_(torch.randn(SHAPE, generator=draws, dtype=dtype))
    return lif


def gradients(lif: LIF, current: torch.Tensor) -> list[torch.Tensor]:
    """Spikes and the gradients of currents, leaks and thresholds under random weights."""
    leaf = current.detach().requires_grad_()
    spikes = lif(leaf)
    g = torch.randn(spikes.shape, dtype=spikes.dtype, generator=torch.Generator().manual_seed(2))
    return [spikes.detach(), *torch.autograd.grad(spikes, [leaf, *lif.parameters()], g)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_neurons_with_numbers_of_their_own_are_those_of_a_layer_of_one_neuron_each(backend, layout):
    torch.manual_seed(0)
    current = LAYOUTS[layout](torch.randn(4, 2, *SHAPE, dtype=DOUBLE) * 2)
    whole = neuron(backend)
    found = gradients(whole, current)
    assert whole.used == backend
    place = (1, 2, 3)
    alone = LIF(0.5, detach_reset=False, surrogate=Arctan(2.0), learn=("leak", "threshold"), backend="reference").to(DOUBLE)
    with torch.no_grad():
        alone.threshold.copy_(whole.threshold[place])
        alone.leak_logit.copy_(whole.leak_logit[place])
    leaf = current[:, :, *place].detach().clone().requires_grad_()
    spikes = alone(leaf)
    g = torch.randn(found[0].shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))[:, :, *place]
    expected = torch.autograd.grad(spikes, [leaf, alone.leak_logit, alone.threshold], g)
    assert torch.equal(found[0][:, :, *place], spikes)
    torch.testing.assert_close(found[1][:, :, *place], expected[0])
    by_name = dict(zip([name for name, _ in whole.named_parameters()], found[2:], strict=True))
    torch.testing.assert_close(by_name["leak_logit"][place], expected[1])
    torch.testing.assert_close(by_name["threshold"][place], expected[2])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.skipif(not native.available(torch.float32), reason="no native kernels")
def test_the_kernels_fire_as_the_loop_does_and_have_its_gradients_for_all_neurons(layout):
    current = LAYOUTS[layout](torch.randn(5, 3, *SHAPE, generator=torch.Generator().manual_seed(4)) * 2)
    expected, found = gradients(neuron("reference", torch.float32), current), gradients(neuron("native", torch.float32), current)
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not native.available(torch.float32), reason="no native kernels")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_single_precision_numbers_serve_currents_in_half_precision(dtype):
    current = torch.randn(4, 2, *SHAPE, generator=torch.Generator().manual_seed(5)).to(dtype)
    assert torch.equal(neuron("native", torch.float32)(current).float(), neuron("reference", torch.float32)(current.float()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_one_by_one_give_the_spikes_of_the_whole_sequence(backend):
    current = LAYOUTS["channels-last"](torch.randn(4, 2, *SHAPE, generator=torch.Generator().manual_seed(6)) * 2).to(DOUBLE)
    lif = neuron(backend)
    with torch.no_grad(), stepping(lif):
        serial = torch.cat([lif(now) for now in current.split([1, 2, 1])])
    assert torch.equal(serial, lif(current))


def test_there_is_one_parameter_per_neuron():
    assert LIF(learn=("threshold",), channels=SHAPE).threshold.shape == SHAPE


def test_currents_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"a current \[T, B, 3, 4, 5\] is needed for channels=\(3, 4, 5\), not \[2, 1, 3, 4, 6\]"):
        LIF(learn=("threshold",), channels=SHAPE)(torch.randn(2, 1, 3, 4, 6))
