"""Neurons with a dynamic decay: every backend against the equations written out, layouts, precision, what is kept, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch

from harness.meters.memory import SavedTensors
from methods.nn import native
from methods.nn.dynamic_decay import DynamicDecay
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan, Triangle

DOUBLE = torch.float64
requires_compiler = pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")
BACKENDS = [pytest.param("native", marks=requires_compiler), "log_depth", "chunked", "serial"]
SPIKES = {"integer": (4, None), "binary": (1, None), "arctan": (1, Arctan())}


def neuron(backend="reference", channels=3, seed=1, **settings):
    torch.manual_seed(seed)
    return DynamicDecay(channels, backend=backend, **{"gate_bias": 0.5, **settings}).double()


def currents(steps, *shape, seed=0):
    return (3 * torch.randn(steps, *shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def results(module, x, seed=5):
    """Spikes, potentials, and gradients of a sum over both with random weights."""
    spikes, h = module._run(x)
    drawn = torch.Generator().manual_seed(seed)
    weights = [torch.randn(x.shape, dtype=DOUBLE, generator=drawn).to(x.dtype) for _ in range(2)]
    loss = (spikes * weights[0]).sum() + (h * weights[1]).sum()
    return spikes, h, torch.autograd.grad(loss, (x, module.weight, module.bias))


def alike(found, expected, atol=1e-12):
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=atol)
    for one, other in zip(found[2], expected[2], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=10 * atol)


CASES = [("depthwise", spikes, tau) for spikes in SPIKES for tau in (0.25, 0.5, 1.0, 0.3)] + [("full", "integer", 0.25)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("gate", "spikes", "tau"), CASES)
def test_every_backend_gives_the_numbers_of_the_equations(backend, gate, spikes, tau):
    levels, surrogate = SPIKES[spikes]
    for taps in (1, 4, 9):
        settings = {"gate": gate, "tau": tau, "levels": levels, "surrogate": surrogate, "taps": taps}
        for shape in ((2, 3, 2, 2), (1, 3)):
            for steps in (1, 3, 20):
                module, x = neuron(backend, **settings), currents(steps, *shape)
                alike(results(module, x), results(neuron(**settings), x))
                assert module.used == backend


@pytest.mark.parametrize("gate", ["depthwise", "full"])
def test_the_equations_are_those_of_the_card(gate):
    module, x = neuron(gate=gate), currents(9, 1, 3).detach()
    h = torch.zeros(3, dtype=DOUBLE)
    for t in range(9):
        z = module.bias.detach().clone()
        for j in range(4):
            if t - 3 + j >= 0:
                tap, seen = module.weight[j].detach(), x[t - 3 + j, 0]
                z += tap * seen if gate == "depthwise" else tap @ seen
        alpha = (1 / (1 + torch.exp(-z))) ** 4
        h = alpha * h + (1 - alpha) * x[t, 0]
        torch.testing.assert_close(module.potentials(x)[t, 0], h, rtol=0, atol=1e-14)
        torch.testing.assert_close(module.decay(x)[t, 0], alpha, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("gate", ["depthwise", "full"])
def test_derivatives_of_potentials_are_the_numerical_ones(backend, gate):
    module, x = neuron(backend, gate=gate, channels=2), currents(5, 1, 2)

    def potentials(x, weight, bias):
        return torch.func.functional_call(Potentials(module), {"neuron.weight": weight, "neuron.bias": bias}, (x,))

    assert torch.autograd.gradcheck(potentials, (x, module.weight, module.bias), rtol=1e-6)


class Potentials(torch.nn.Module):
    """A neuron that returns its potentials."""

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, x):
        return self.neuron.potentials(x)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gate", ["depthwise", "full"])
def test_any_layout_gives_the_same_numbers(backend, gate):
    settings = {"gate": gate, "channels": 3}
    plain = currents(6, 2, 3, 2, 2).detach()
    last = plain.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (6, 2))
    inner = plain.permute(1, 2, 3, 4, 0).contiguous().permute(4, 0, 1, 2, 3)
    swapped = plain.transpose(1, 2).contiguous().transpose(1, 2)
    constant = plain[:1].expand(6, -1, -1, -1, -1)
    for x in (plain, last, inner, swapped, plain.repeat_interleave(2, 0)[::2], constant):
        expected = results(neuron(**settings), x.detach().contiguous().requires_grad_())
        alike(results(neuron(backend, **settings), x.detach().requires_grad_()), expected)


@requires_compiler
def test_the_kernel_cuts_many_neurons_into_blocks_and_uses_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for shape in ((7, 300), (3, 5, 13, 9)):
            channels = shape[1]
            x = currents(10, *shape)
            alike(results(neuron("native", channels), x), results(neuron("reference", channels), x))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_keeps_currents_decay_and_potentials_only(backend):
    module, x = neuron(backend, channels=5), currents(50, 2, 5)
    with SavedTensors(module) as saved:
        module(x)
    # Currents of the gate are those of the scan: one storage.
    assert saved.peak == 3 * 8 * x.numel()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_half_precision_has_potentials_in_single(backend):
    torch.manual_seed(0)
    module = DynamicDecay(3, backend=backend)
    x = (3 * torch.randn(40, 2, 3)).bfloat16()
    spikes = module(x)
    assert spikes.dtype == torch.bfloat16
    assert module.potentials(x).dtype == torch.float32
    assert torch.equal(spikes.float(), module(x.float()))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module.potentials(x), module.potentials(x.float()), rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_nan_stays_where_it_is_and_goes_on_in_time(backend):
    x = torch.zeros(6, 1, 3, dtype=DOUBLE)
    x[2, 0, 1] = torch.nan
    spikes = neuron(backend)(x)
    assert spikes[2:, 0, 1].isnan().all()
    assert spikes.isnan().sum() == 4


def test_without_a_compiler_wide_or_short_sequences_are_looped_and_others_scanned(monkeypatch):
    monkeypatch.setattr("methods.nn.decay_native.why_not", lambda *given: "no compiler")
    for shape, expected in {(4, 2, 3): "serial", (40, 2, 3): "log_depth", (40, 2000, 3): "serial"}.items():
        module = neuron("auto")
        module(torch.zeros(shape, dtype=DOUBLE))
        assert module.used == expected


@requires_compiler
def test_with_a_compiler_it_is_native():
    module = neuron("auto")
    module(torch.zeros(40, 2, 3, dtype=DOUBLE))
    assert module.used == "native"


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_go_through_the_state_from_call_to_call(backend):
    x, cut = currents(12, 2, 3), 5
    module = neuron(backend)
    weights = torch.randn(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    expected = torch.autograd.grad((module(x) * weights).sum(), (x, module.weight, module.bias))
    with stepping(module):
        pieces = torch.cat([module(x[:cut]), module(x[cut : cut + 1]), module(x[cut + 1 :])])
    found = torch.autograd.grad((pieces * weights).sum(), (x, module.weight, module.bias))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_weights_start_as_those_of_a_convolution_and_the_bias_as_asked():
    torch.manual_seed(0)
    depthwise, full = DynamicDecay(200), DynamicDecay(20, gate="full", gate_bias=2.0)
    assert (depthwise.weight.shape, full.weight.shape) == ((4, 200), (4, 20, 20))
    for module, bound in ((depthwise, 1 / 2), (full, 1 / 80**0.5)):
        assert bound * 0.95 < module.weight.abs().max() <= bound
    assert (depthwise.bias == 0).all()
    assert (full.bias == 2).all()


def test_at_the_start_neurons_nearly_forget_unless_bias_or_tau_say_otherwise():
    x = torch.zeros(3, 1, 4)
    assert DynamicDecay(4).decay(x).mean() == pytest.approx(1 / 16)
    assert DynamicDecay(4, gate_bias=2.0).decay(x).mean() == pytest.approx(0.8808**4, rel=1e-3)
    assert DynamicDecay(4, tau=1.0).decay(x).mean() == pytest.approx(1 / 2)


def test_a_copy_answers_alike():
    module, x = neuron("auto"), currents(5, 2, 3)
    assert torch.equal(copy.deepcopy(module)(x), module(x))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="gate 'wide' is unknown; allowed: depthwise, full"):
        DynamicDecay(3, gate="wide")
    with pytest.raises(ValueError, match="backend 'gpu' is unknown; allowed: auto, reference, native"):
        DynamicDecay(3, backend="gpu")
    with pytest.raises(ValueError, match="taps is a number of inputs, 1 or more, not 0"):
        DynamicDecay(3, taps=0)
    with pytest.raises(ValueError, match="tau must be above 0"):
        DynamicDecay(3, tau=0.0)
    for shape in ((4, 2, 5), (4, 3), (0, 2, 3)):
        with pytest.raises(ValueError, match="is needed"):
            DynamicDecay(3)(torch.zeros(shape))
    with pytest.raises(RuntimeError, match="Triangle"):
        DynamicDecay(3, levels=1, surrogate=Triangle(), backend="native")(torch.zeros(4, 2, 3))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="triton backend cannot be used"):
            DynamicDecay(3, backend="triton")(torch.zeros(4, 2, 3))
