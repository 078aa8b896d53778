"""Parallel spiking neurons: the numbered faithfulness tests of the card, and the plugin on a task."""

from __future__ import annotations

import pytest
import torch

from harness.loop import train
from harness.registry import Registries
from methods.nn.neuron import LIF
from methods.nn.psn import PSN, MaskedPSN, SlidingPSN
from methods.nn.stepping import stepping
from methods.psn import Psn, mask_strength
from suites.static_vision import Digits


def currents(steps=12, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, *(shape or (3, 5)), dtype=torch.float64, generator=generator)


def masked(steps, order, lam):
    torch.manual_seed(1)
    neuron = MaskedPSN(steps, order).double()
    neuron.lam.fill_(lam)
    return neuron


def sliding(order, backend, seed=2, **kwargs):
    neuron = SlidingPSN(order, backend, **kwargs).double()
    with torch.no_grad():
        neuron.weight.copy_(torch.randn(order, generator=torch.Generator().manual_seed(seed)))
        neuron.bias.fill_(-0.3)
    return neuron


def one_step_at_a_time(neuron, x):
    with stepping(neuron):
        return torch.cat([neuron(x[t : t + 1]) for t in range(len(x))])


def potentials(kernel, bias, x):
    """H[t] = sum_i w[i] X[t - k + 1 + i] + b, written out."""
    order = len(kernel)
    rows = []
    for t in range(len(x)):
        terms = [kernel[i] * x[t - order + 1 + i] for i in range(order) if t - order + 1 + i >= 0]
        rows.append(sum(terms) + bias)
    return torch.stack(rows)


# 1
def test_with_the_weights_of_a_leaky_integrator_it_is_lif_without_reset():
    steps, leak = 16, 0.5
    neuron = PSN(steps).double()
    lag = torch.arange(steps)[:, None] - torch.arange(steps)
    with torch.no_grad():
        neuron.weight.copy_(torch.where(lag >= 0, (1 - leak) * leak ** lag.clamp_min(0).double(), 0))
    x = 2 * currents(steps, 4, 50)
    lif = LIF(leak, 1.0, "none", scale_input=True)
    spikes = neuron(x)
    assert torch.equal(spikes, lif(x))
    assert 0 < spikes.mean() < 1


# 2
def test_psn_uses_the_future():
    x = currents(6, 1).requires_grad_()
    torch.manual_seed(0)
    jacobian = torch.autograd.functional.jacobian(PSN(6).double().charge, x)[:, 0, :, 0]
    assert (jacobian.triu(1)[0, 1:] != 0).all()


def test_a_masked_psn_at_full_mask_sees_the_last_k_inputs_only():
    order = 3
    jacobian = torch.autograd.functional.jacobian(masked(8, order, 1.0).charge, currents(8, 1))[:, 0, :, 0]
    for t in range(8):
        for source in range(8):
            assert (jacobian[t, source] != 0) == (t - order < source <= t)


# 3
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_the_matrix_of_a_masked_psn_is_the_stated_mixture(lam):
    steps, order = 7, 3
    neuron = masked(steps, order, lam)
    band = torch.tensor([[float(j <= i <= j + order - 1) for j in range(steps)] for i in range(steps)], dtype=torch.float64)
    lam = neuron.lam
    assert torch.equal(neuron.matrix(), (lam * band + (1 - lam) * torch.ones(steps, steps, dtype=torch.float64)) * neuron.weight)


def test_without_a_mask_it_is_a_psn_and_with_a_full_mask_the_band_alone():
    neuron, plain, x = masked(7, 3, 0.0), PSN(7).double(), currents(7)
    plain.load_state_dict({"weight": neuron.weight, "bias": neuron.bias})
    assert torch.equal(neuron.charge(x), plain.charge(x))
    neuron.lam.fill_(1.0)
    assert torch.equal(neuron.matrix(), neuron.weight.tril().triu(-2))


# 4
@pytest.mark.parametrize("order", [1, 3, 12])
@pytest.mark.parametrize("chunk", [1, 5])
def test_a_masked_psn_runs_step_by_step_as_in_parallel(order, chunk):
    neuron, x = masked(12, order, 1.0), 8 * currents(12, 3, 5)
    with stepping(neuron):
        serial = torch.cat([neuron(part) for part in x.split(chunk)])
    assert torch.equal(serial, neuron(x))
    assert 0 < serial.mean() < 1


@pytest.mark.parametrize("lam", [0.0, 0.99])
def test_a_masked_psn_refuses_to_step_while_it_uses_the_future(lam):
    neuron = masked(4, 2, lam)
    with stepping(neuron), pytest.raises(RuntimeError, match="lam"):
        neuron(currents(1))


def test_a_masked_psn_refuses_to_step_beyond_its_length():
    neuron, x = masked(4, 2, 1.0), currents(5)
    with stepping(neuron):
        for t in range(4):
            neuron(x[t : t + 1])
        with pytest.raises(RuntimeError, match="4 time steps"):
            neuron(x[4:])


# 5
@pytest.mark.parametrize("steps", [10, 25])
@pytest.mark.parametrize("order", [1, 4, 10])
def test_a_sliding_psn_gives_the_same_spikes_as_matrix_convolution_and_step_by_step(steps, order):
    x = currents(steps, 4, 6)
    gemm, conv = sliding(order, "gemm"), sliding(order, "conv")
    expected = (potentials(gemm.weight, gemm.bias, x) >= 0).double()
    assert torch.equal(gemm(x), expected)
    assert torch.equal(conv(x), expected)
    assert torch.equal(one_step_at_a_time(gemm, x), expected)
    assert torch.equal(one_step_at_a_time(conv, x), expected)


@pytest.mark.parametrize("backend", ["gemm", "conv"])
def test_a_longer_run_of_a_sliding_psn_begins_like_a_shorter_one(backend):
    neuron, x = sliding(4, backend), currents(30)
    assert torch.equal(neuron(x)[:10], neuron(x[:10]))


# 6
@pytest.mark.parametrize("backend", ["gemm", "conv"])
def test_gradients_of_serial_and_parallel_sliding_psn_agree(backend):
    neuron, x = sliding(4, backend), currents(12).requires_grad_()
    weights = currents(12, seed=5)
    wanted = (x, neuron.weight, neuron.bias)
    parallel = torch.autograd.grad((neuron(x) * weights).sum(), wanted)
    serial = torch.autograd.grad((one_step_at_a_time(neuron, x) * weights).sum(), wanted)
    for a, b in zip(parallel, serial, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_the_gradient_is_the_arctan_surrogate_through_the_linear_map():
    neuron, x = sliding(3, "gemm"), currents(6).requires_grad_()
    h = potentials(neuron.weight, neuron.bias, x)
    surrogate = (1 / (1 + (torch.pi * h) ** 2)).detach()
    expected = torch.autograd.grad((h * surrogate).sum(), (x, neuron.weight, neuron.bias))
    found = torch.autograd.grad(neuron(x).sum(), (x, neuron.weight, neuron.bias))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# 7
def test_thresholds_start_at_one_and_a_sliding_kernel_at_powers_of_a_half():
    for neuron in (PSN(5), MaskedPSN(5, 2), SlidingPSN(4)):
        assert (neuron.bias == -1).all()
    assert SlidingPSN(4).weight.tolist() == [0.125, 0.25, 0.5, 1.0]
    assert PSN(64).weight.abs().max() <= 64**-0.5  # Kaiming uniform with a = sqrt 5


# 8
def test_the_number_of_parameters_is_that_of_the_card():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert (count(PSN(9)), count(MaskedPSN(9, 4)), count(SlidingPSN(4))) == (90, 90, 5)


def test_psn_refuses_to_step_and_refuses_another_length():
    neuron = PSN(4)
    with stepping(neuron), pytest.raises(RuntimeError, match="future"):
        neuron(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="4 time steps, got 6"):
        neuron(torch.zeros(6, 2))


def test_the_mask_is_full_after_an_eighth_of_the_training():
    assert [mask_strength(epoch, 17) for epoch in range(17)] == [0.0, 0.5] + [1.0] * 15
    assert mask_strength(0, 1) == 1.0


@pytest.mark.parametrize("variant", ["psn", "masked", "sliding"])
def test_the_plugin_trains_a_short_while_and_reports(variant):
    torch.manual_seed(0)
    method = Psn(Digits(), {"variant": variant, "order": 2}, training={"epochs": 2, "batch_size": 256})
    net = method.build()
    traces = train(method, net, seed=0).traces
    report = method.report(net)
    assert torch.isfinite(torch.tensor([trace.loss for trace in traces])).all()
    assert report["causal"] == (variant != "psn")
    assert report["neuron_parameters"] == [{"psn": 20, "masked": 20, "sliding": 3}[variant]] * 4
    assert report.get("lam") == (1.0 if variant == "masked" else None)
    assert report.get("serial_agreement", 1.0) == 1.0


@pytest.mark.parametrize(("variant", "optimizer", "lr"), [("psn", "sgd", 0.1), ("sliding", "adamw", 1e-3)])
def test_sliding_neurons_have_another_optimiser_on_sequences(variant, optimizer, lr):
    training = Psn(Registries().task("sequences/digits-pixels"), {"variant": variant}, track="recipe").training
    assert (training.optimizer, training.lr) == (optimizer, lr)
