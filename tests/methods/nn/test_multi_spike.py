"""Exact multi-spike neurons against a walk from event to event, a fine simulation, finite differences and autograd; double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.nn import multi_spike
from methods.nn.event_layer import EventConv2d, EventLinear
from methods.nn.multi_spike import Lif, MultiSpike, own_resets, spike_times
from methods.nn.spike_times import SILENT, merged

LIF = Lif(theta=0.05, delta=0.05, tau_s=0.13, buffer=20, end=0.2)


def trains(*shape, silent=0.1, seed=0, latest=0.15):
    drawn = torch.Generator().manual_seed(seed)
    times = torch.rand(*shape, generator=drawn, dtype=torch.float64) * latest
    return torch.where(times < latest * (1 - silent), times, SILENT).sort(-1).values


def weights(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def walk(times, weight, lif):
    """The sequential reference: the spikes of one sample ``times [F, K]``, neuron by neuron, input by input."""
    inputs = sorted((t, j) for j, train in enumerate(times.tolist()) for t in train if t < lif.end)
    found = []
    for row in weight.tolist():
        a = b = 0.0
        train = []
        for place, (t, j) in enumerate(inputs):
            a += row[j] * math.exp(t / lif.tau_s)
            b += row[j] * math.exp(t / lif.tau)
            latest = min(inputs[place + 1][0], lif.end) if place + 1 < len(inputs) else lif.end
            last = max([t, *train[-1:]])
            while len(train) < lif.buffer and (square := b * b - 4 * a * lif.c) >= 0:
                x = math.sqrt(square)
                if b + x == 0 or 2 * a / (b + x) <= 0:
                    break
                spike = lif.tau * math.log(2 * a / (b + x))
                if not last < spike <= latest:
                    break
                train.append(spike)
                b -= lif.d * math.exp(spike / lif.tau)
                last = spike
        found.append(train)
    return found


def simulate(times, weight, lif, dt=1e-5):
    """Clocked: exact exponentials from step to step, input spikes at the nearest step. Returns the trains of the neurons."""
    u, g = np.zeros(len(weight)), np.zeros(len(weight))
    keep_u, keep_g = math.exp(-dt / lif.tau), math.exp(-dt / lif.tau_s)
    gain = lif.tau * (keep_u - keep_g)  # u after dt of a g that was 1
    at = {}
    for j, train in enumerate(times.tolist()):
        for t in train:
            if t < lif.end:
                at.setdefault(round(t / dt), []).append(j)
    found = [[] for _ in weight]
    columns = weight.numpy().T
    for step in range(round(lif.end / dt)):
        for j in at.get(step, ()):
            g += columns[j]
        u, g = u * keep_u + g * gain, g * keep_g
        if (u >= lif.theta).any():
            for neuron in (u >= lif.theta).nonzero()[0]:
                found[neuron].append((step + 1) * dt)
                u[neuron] -= lif.delta
    return found


def listed(times):
    return [[[t for t in train if t < SILENT] for train in sample] for sample in times.tolist()]


def directions(like, number=6):
    """Random directions in which only finite times move, ``[number, ...]``."""
    drawn = torch.randn(number, *like.shape, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    return torch.where(torch.isfinite(like), drawn, 0)


def numbers(function, x, h=1e-6):
    """The derivatives of a scalar function along ``directions`` by central differences."""
    return torch.tensor([(function(x + h * d) - function(x - h * d)) / (2 * h) for d in directions(x)], dtype=torch.float64)


def projected(times, seed=7):
    """A scalar of spike times in which each has a weight of its own, the same wherever its slot is."""
    drawn = torch.rand(times.shape[0], times.shape[1], 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (torch.where(torch.isfinite(times), times, 0) * drawn[..., : times.shape[2]]).sum()


def relative(found, expected):
    """How far apart, by the norm of all numbers together."""
    return float((found - expected).norm() / expected.norm())


# Forward ------------------------------------------------------------------------------------------------------------


def test_spike_times_and_counts_are_those_of_a_fine_simulation():
    lif, times, weight = Lif(0.05, 0.05, 0.13, 100, 0.2), trains(1, 20, 3), weights(15, 20)
    found, simulated = listed(spike_times(times, weight, lif))[0], simulate(times[0], weight, lif)
    assert [len(train) for train in found] == [len(train) for train in simulated]
    assert sum(map(len, found)) > 40
    assert max(abs(s - t) for a, b in zip(found, simulated, strict=True) for s, t in zip(a, b, strict=True)) < 5e-4


@pytest.mark.parametrize("lif", [LIF, Lif(0.01, 0.003, 0.02, 3, 0.2), Lif(0.02, 0.05, 0.5, 50, 0.12)])
def test_the_vectorised_forward_equals_the_walk_from_input_to_input(lif):
    times, weight = trains(5, 20, 3), weights(30, 20)
    found = listed(spike_times(times, weight, lif))
    expected = [walk(sample, weight, lif) for sample in times]
    assert [[len(train) for train in sample] for sample in found] == [[len(train) for train in sample] for sample in expected]
    assert sum(len(train) for sample in expected for train in sample) > 100
    torch.testing.assert_close(
        torch.tensor([t for sample in found for train in sample for t in train], dtype=torch.float64),
        torch.tensor([t for sample in expected for train in sample for t in train], dtype=torch.float64),
        rtol=0,
        atol=1e-12,
    )


def test_single_precision_gives_the_same_counts_and_times():
    times, weight = trains(5, 20, 3), weights(30, 20)
    exact, rounded = spike_times(times, weight, LIF), spike_times(times.float(), weight.float(), LIF)
    assert torch.equal(exact.isfinite(), rounded.isfinite())
    fired = exact.isfinite()
    assert int(fired.sum()) > 400
    assert float((exact - rounded)[fired].abs().median()) < 1e-7
    assert float((exact - rounded)[fired].abs().max()) < 1e-5


def test_a_buffer_of_one_keeps_exactly_the_first_spikes():
    times, weight = trains(3, 20, 3), weights(30, 20)
    eight, one = (spike_times(times, weight, Lif(0.05, 0.05, 0.13, k, 0.2)) for k in (8, 1))
    assert eight.shape[2] == 8
    assert torch.equal(one[..., 0], eight[..., 0])


def test_shifted_inputs_shift_all_spikes():
    times, weight = trains(3, 20, 3), weights(30, 20)
    here, there = spike_times(times, weight, LIF), spike_times(times + 0.5, weight, Lif(0.05, 0.05, 0.13, 20, 0.7))
    assert torch.equal(here.isfinite(), there.isfinite())
    torch.testing.assert_close(there, here + 0.5, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_stream_of_many_time_constants_is_cut_into_windows_without_a_trace(dtype):
    lif = Lif(0.3, 0.3, 0.01, 1000, 3.0)  # 300 tau_s: exp(600) at the end if there was one reference time
    times, weight = trains(2, 10, 40, latest=2.9).to(dtype), weights(6, 10).to(dtype)
    small = Lif(0.005, 0.005, 0.01, 1000, 3.0)
    for neuron in (lif, small):
        found = listed(spike_times(times, weight, neuron))
        expected = [walk_from_zero(sample.double(), weight.double(), neuron) for sample in times]
        assert [[len(train) for train in sample] for sample in found] == [[len(train) for train in sample] for sample in expected]
    assert sum(len(train) for sample in expected for train in sample) > 50
    pairs = [(s, t) for a, b in zip(found, expected, strict=True) for c, d in zip(a, b, strict=True) for s, t in zip(c, d, strict=True)]
    assert max(abs(s - t) for s, t in pairs) < (1e-10 if dtype == torch.float64 else 2e-5)


def walk_from_zero(times, weight, lif):
    """``walk`` with a and b relative to the last input, so that nothing overflows."""
    inputs = sorted((t, j) for j, train in enumerate(times.tolist()) for t in train if t < lif.end)
    found = []
    for row in weight.tolist():
        a = b = reference = 0.0
        train = []
        for place, (t, j) in enumerate(inputs):
            a = a * math.exp((reference - t) / lif.tau_s) + row[j]
            b = b * math.exp((reference - t) / lif.tau) + row[j]
            reference = last = t
            latest = inputs[place + 1][0] if place + 1 < len(inputs) else lif.end
            while (square := b * b - 4 * a * lif.c) >= 0 and (z := 2 * a / (b + math.sqrt(square) or SILENT)) > 0:
                spike = t + lif.tau * math.log(z)
                if not last < spike <= latest:
                    break
                train.append(spike)
                b -= lif.d * z
                last = spike
        found.append(train)
    return found


def test_neurons_without_input_or_below_threshold_are_silent():
    assert spike_times(torch.full((2, 3, 1), SILENT), torch.ones(4, 3), LIF).tolist() == [[[SILENT]] * 4] * 2
    weight = torch.full((4, 3), -1.0, requires_grad=True)
    times = torch.zeros(2, 3, 1, requires_grad=True)
    found = spike_times(times, weight, LIF)
    assert not found.isfinite().any()
    torch.where(found.isfinite(), found, 0).sum().backward()
    assert weight.grad.tolist() == [[0.0] * 3] * 4
    assert times.grad.tolist() == [[[0.0]] * 3] * 2


# Backward -----------------------------------------------------------------------------------------------------------


def two_layers():
    hidden, last = LIF, Lif(0.1, 0.1, 0.13, 20, 0.2)
    times, first, second = trains(2, 8, 2), weights(7, 8), weights(4, 7, seed=3) + 0.3

    def run(times, first, second):
        return projected(spike_times(spike_times(times, first, hidden), second, last))

    return run, [times, first, second]


def gradients(run, values):
    leaves = [value.clone().requires_grad_() for value in values]
    run(*leaves).backward()
    return [(directions(leaf) * leaf.grad).flatten(1).sum(1) for leaf in leaves]


def differences(run, values):
    return [numbers(lambda x, i=i: run(*values[:i], x, *values[i + 1 :]), value) for i, value in enumerate(values)]


def test_gradients_of_two_layers_are_those_of_finite_differences():
    run, values = two_layers()
    for found, expected in zip(gradients(run, values), differences(run, values), strict=True):
        assert expected.norm() > 1e-3
        assert relative(found, expected) < 1e-6


def test_gradients_without_own_resets_are_wrong(monkeypatch):
    run, values = two_layers()
    monkeypatch.setattr(multi_spike, "own_resets", lambda errors, z, x, carried, lif: (torch.where(z > 0, errors, 0), carried))
    for found, expected in zip(gradients(run, values), differences(run, values), strict=True):
        assert relative(found, expected) > 1e-2


def test_own_resets_in_linear_time_equal_the_dense_solve():
    drawn = torch.Generator().manual_seed(0)
    errors, z, x = (torch.rand(1, 1, 9, generator=drawn, dtype=torch.float64) + 0.5 for _ in range(3))
    found, carried = own_resets(errors, z, x, torch.zeros(1, 1, dtype=torch.float64), LIF)
    jacobian = torch.tril(LIF.d / x[0, 0].unsqueeze(1) * z[0, 0].unsqueeze(0), -1)  # R[q, z] = dt_q / dt_z
    expected = torch.linalg.solve((torch.eye(9, dtype=torch.float64) - jacobian).T, errors[0, 0])
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(carried[0, 0], (expected * LIF.d / x[0, 0]).sum(), rtol=1e-10, atol=0)


def test_gradients_equal_autograd_through_the_closed_form():
    times, weight = trains(1, 12, 2), weights(5, 12)
    leaves = [times.clone().requires_grad_(), weight.clone().requires_grad_()]
    found = spike_times(*leaves, LIF)
    projected(found).backward()
    again = [times.clone().requires_grad_(), weight.clone().requires_grad_()]
    total = torch.zeros((), dtype=torch.float64)
    factors = torch.rand(1, 5, 32, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    for neuron in range(5):
        spikes = []
        for k, when in enumerate(t for t in found[0, neuron].tolist() if t < SILENT):
            causal = again[0][0] < when
            t = torch.where(causal, again[0][0], 0)
            drive = torch.where(causal, again[1][neuron].unsqueeze(1), 0)
            a = (drive * (t / LIF.tau_s).exp()).sum()
            b = (drive * (t / LIF.tau).exp()).sum() - sum(LIF.d * (own / LIF.tau).exp() for own in spikes)
            spikes.append(LIF.tau * (2 * a / (b + (b * b - 4 * a * LIF.c).sqrt())).log())
            total = total + factors[0, neuron, k] * spikes[-1]
    total.backward()
    for leaf, expected in zip(leaves, again, strict=True):
        assert relative(leaf.grad, expected.grad) < 1e-9


def test_windows_and_blocks_of_neurons_leave_gradients_as_they_are(monkeypatch):
    times, weight = trains(3, 12, 2), weights(9, 12)
    whole = gradients(lambda t, w: projected(spike_times(t, w, LIF)), [times, weight])
    monkeypatch.setattr(multi_spike, "LONGEST", 0.2)
    monkeypatch.setattr(multi_spike, "ELEMENTS", 150)
    assert len(multi_spike.windows(times, LIF)) > 5
    cut = gradients(lambda t, w: projected(spike_times(t, w, LIF)), [times, weight])
    for found, expected in zip(cut, whole, strict=True):
        assert relative(found, expected) < 1e-10


def test_a_grazing_crossing_has_a_finite_gradient():
    z = torch.ones(1, 1, 2)
    total, _ = own_resets(torch.ones(1, 1, 2), z, torch.zeros(1, 1, 2), torch.zeros(1, 1), LIF)
    assert total.isfinite().all()


# Convolution and aggregation ----------------------------------------------------------------------------------------


def convolution(lif=LIF):
    layer = MultiSpike(EventConv2d(2, 3, 3), lif).double()
    with torch.no_grad():
        layer.synapse.weight.copy_(weights(3, 2, 3, 3))
    return layer, trains(2, 2, 5, 4, 2)


def test_a_convolution_is_the_expanded_dense_layer():
    layer, times = convolution()
    expanded = torch.zeros(3, 3, 2, 2, 5, 4, dtype=torch.float64)  # [N, H', W', C, H, W]
    for row in range(3):
        for column in range(2):
            expanded[:, row, column, :, row : row + 3, column : column + 3] = layer.synapse.weight.detach()
    dense = spike_times(times.flatten(1, 3), expanded.view(18, 40), LIF)
    found = layer(times)
    assert found.shape[:4] == (2, 3, 3, 2)
    assert int(found.isfinite().sum()) > 50
    torch.testing.assert_close(found.flatten(1, 3), dense, rtol=0, atol=1e-12)


def test_gradients_of_tied_filters_and_times_of_a_convolution_are_those_of_finite_differences():
    layer, times = convolution()

    def run(times, weight):
        return projected(torch.func.functional_call(layer, {"synapse.weight": weight}, (times,)).flatten(1, 3))

    values = [times, layer.synapse.weight.detach()]
    for found, expected in zip(gradients(run, values), differences(run, values), strict=True):
        assert relative(found, expected) < 1e-6


def test_aggregation_sends_errors_back_by_the_permutation_of_the_sort():
    times = trains(2, 4, 3, silent=0.3).requires_grad_()
    joined = merged(times, 1)
    errors = torch.arange(1.0, joined.numel() + 1, dtype=torch.float64).view_as(joined)
    joined.backward(errors)
    for sample in range(2):
        for t, error in zip(joined[sample].tolist(), errors[sample].tolist(), strict=True):
            if t < SILENT:
                assert times.grad[sample][times[sample] == t].tolist() == [error]


# The layer ----------------------------------------------------------------------------------------------------------


def test_spikes_kept_for_the_backward_pass_do_not_grow_with_simulated_time():
    def saved(end):
        sizes = []
        weight = weights(5, 8).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            spike_times(trains(2, 8, 1), weight, Lif(0.4, 0.4, 0.13, 1, end))
        return sum(sizes)

    assert saved(0.4) == saved(4.0)


def test_a_dense_layer_flattens_images():
    layer = MultiSpike(EventLinear(40, 3), LIF).double()
    times = trains(2, 2, 5, 4, 2)
    assert torch.equal(layer(times), layer(times.flatten(1, 3)))
