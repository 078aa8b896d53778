"""Hoyer thresholds against formulas and autograd, in double precision; numbers are those of the card's list of tests."""

from __future__ import annotations

import math

import pytest
import torch

from methods.nn.compiled import why_not
from methods.nn.hoyer import HoyerThreshold, hoyer_extremum, hoyer_square, penalties
from methods.nn.stepping import stepping


def potentials(*shape, seed=0, shift=0.2):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def layer(channels=3, v=1.0, **settings):
    neuron = HoyerThreshold(channels, v=v, **settings).double()
    with torch.no_grad():
        neuron.v.fill_(v)  # not rounded to single precision
    return neuron


def gradients(neuron, z, weights=None, lam=0.0):
    """Return the gradients of z and v of ``sum(weights * spikes) + lam * H``, weights of None being ones."""
    z = z.clone().requires_grad_()
    with penalties(neuron) as found:
        spikes = neuron(z)
    loss = (spikes if weights is None else weights * spikes).sum() + (lam * found[0] if lam else 0)
    return torch.autograd.grad(loss, [z, neuron.v], allow_unused=True)


# 1
def test_gradient_of_the_hoyer_square_is_negative_exactly_above_the_extremum():
    x = potentials(4, 3, 5, 5).abs().requires_grad_()
    (found,) = torch.autograd.grad(hoyer_square(x), x)
    x = x.detach()
    s, q = x.sum(), x.square().sum()
    torch.testing.assert_close(found, 2 * s / q * (1 - x * s / q), rtol=1e-12, atol=0)
    assert torch.equal(found < 0, x > hoyer_extremum(x))


def test_penalty_of_a_layer_is_the_hoyer_square_of_the_clipped_map_and_so_is_its_gradient():
    z, neuron = potentials(1, 4, 3, 5, 5), layer(v=0.8)
    z.requires_grad_()
    with penalties(neuron) as found:
        neuron(z)
    wanted = hoyer_square(z.clamp(0, 0.8))
    torch.testing.assert_close(found[0], wanted, rtol=1e-12, atol=0)
    mine, theirs = (torch.autograd.grad(h, z)[0] for h in (found[0], wanted))
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


# 2
def test_extremum_lies_between_the_mean_and_one_and_scales_with_the_map():
    x = potentials(4, 3, 5, 5).clamp(0, 1)
    e = hoyer_extremum(x)
    assert x.mean() <= e <= 1
    torch.testing.assert_close(hoyer_extremum(3 * x), 3 * e)
    torch.testing.assert_close(hoyer_square(3 * x), hoyer_square(x))
    channels = hoyer_extremum(x, per_channel=True)
    assert (x.mean((0, 2, 3)) <= channels).all() and (channels <= 1).all()


def test_hoyer_square_counts_entries():
    one_hot = torch.zeros(7, dtype=torch.float64)
    one_hot[3] = 0.4
    assert hoyer_square(one_hot).item() == pytest.approx(1)
    assert hoyer_square(torch.full((2, 3, 4), 0.4)).item() == pytest.approx(24)
    assert hoyer_square(torch.zeros(5)).item() == 0


def test_threshold_never_exceeds_the_clip_value():
    neuron = layer(v=-0.7)
    neuron(potentials(1, 4, 3, 5, 5, shift=2.0))
    for _ in range(200):
        neuron(potentials(1, 4, 3, 5, 5, shift=2.0))
    assert (neuron.threshold() > 0.5).all() and (neuron.threshold() <= 0.7).all()


# 3
@pytest.mark.parametrize("extremum", ["channel", "tensor"])
@pytest.mark.parametrize("v", [1.0, 0.6, -0.6])
def test_neurons_fire_from_the_extremum_of_the_clipped_potentials_on(extremum, v):
    z = potentials(1, 4, 3, 5, 5)
    x = z[0].clamp(0, abs(v))
    dims = (0, 2, 3) if extremum == "channel" else (0, 1, 2, 3)
    threshold = x.square().sum(dims, keepdim=True) / x.sum(dims, keepdim=True)
    spikes = layer(extremum=extremum, v=v)(z)
    assert torch.equal(spikes[0], (z[0] >= threshold).double())
    assert 0 < spikes.mean() < 1


def test_vectors_have_one_extremum_of_the_whole_tensor():
    z = potentials(1, 8, 5)
    x = z.clamp(0, 1)
    assert torch.equal(layer(5)(z), (z >= x.square().sum() / x.sum()).double())


def test_scale_lowers_the_threshold_and_without_extremum_it_is_the_clip_value():
    z = potentials(1, 4, 3, 5, 5)
    x = z.clamp(0, 1)
    assert torch.equal(layer(extremum="tensor", scale=0.5)(z), (z >= 0.5 * x.square().sum() / x.sum()).double())
    assert torch.equal(layer(extremum="none", v=0.5)(z), (z >= 0.5).double())


# 4
@pytest.mark.parametrize(("window", "most"), [("unit", 1.0), ("wide", 2.0)])
def test_gradient_of_spikes_is_a_half_on_the_window_and_takes_no_path_through_the_extremum(window, most):
    z = potentials(1, 4, 3, 5, 5, shift=0.8)
    z[0, 0, 0, 0] = torch.tensor([0.0, 1.0, 2.0, 2.0 + 1e-9, 1.0 - 1e-9])
    inside = (z > 0) & (z <= 2) if window == "wide" else (z > 0) & (z < 1)
    assert inside.any() and (z > most).any()
    assert torch.equal(gradients(layer(window=window), z)[0], 0.5 * inside)


def test_gradient_of_potentials_is_divided_by_the_clip_value():
    z = potentials(1, 4, 3, 5, 5)
    assert torch.allclose(gradients(layer(v=-0.5), z)[0], ((z > 0) & (z < 0.5)).double())


# 5
@pytest.mark.parametrize("v", [1.0, 0.7, -0.7])
def test_gradient_of_the_clip_value_is_that_of_the_card(v):
    z, weights = potentials(1, 4, 3, 5, 5), potentials(1, 4, 3, 5, 5, seed=1)
    mask = (z > 0) & (z < abs(v))
    wanted = (weights * 0.5 * mask * (-z / v**2)).sum() * math.copysign(1, v)
    torch.testing.assert_close(gradients(layer(v=v), z, weights)[1], wanted, rtol=1e-12, atol=1e-12)


def test_a_fixed_clip_value_takes_no_gradient():
    neuron = layer(extremum="none", learn=False)
    neuron(potentials(1, 4, 3, 5, 5).requires_grad_()).sum().backward()
    assert neuron.v.grad is None


# 6
def test_a_channel_without_positive_values_is_silent_and_its_extremum_is_one():
    z = potentials(1, 4, 3, 5, 5)
    z[:, :, 1] = -z[:, :, 1].abs()
    neuron = layer()
    spikes = neuron(z)
    assert spikes[:, :, 1].count_nonzero() == 0
    assert neuron.running[1].item() == pytest.approx(0.1)
    assert neuron.running.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(neuron, torch.zeros_like(z), lam=1.0))


# 7
def test_running_extremum_of_constant_data_approaches_it_by_the_law_of_the_card():
    z, neuron = potentials(1, 4, 3, 5, 5), layer(v=0.8)
    wanted = hoyer_extremum((z[0] / 0.8).clamp(0, 1), per_channel=True)
    for n in range(1, 6):
        neuron(z)
        torch.testing.assert_close(neuron.running, wanted * (1 - 0.9**n), rtol=1e-12, atol=0)
    torch.testing.assert_close(neuron.threshold(), 0.8 * wanted * (1 - 0.9**5), rtol=1e-12, atol=0)


@pytest.mark.parametrize("start", ["corrected", "first"])
def test_other_starts_have_the_extremum_of_constant_data_from_the_first_batch_on(start):
    z, neuron = potentials(1, 4, 3, 5, 5), layer(start=start)
    assert torch.equal(neuron.threshold(), torch.ones(3, dtype=torch.float64))
    wanted = hoyer_extremum(z[0].clamp(0, 1), per_channel=True)
    for _ in range(3):
        neuron(z)
        torch.testing.assert_close(neuron.threshold(), wanted, rtol=1e-12, atol=0)
    assert torch.equal(neuron.eval()(z)[0], (z[0] >= neuron.threshold().view(3, 1, 1)).double())


def test_answers_in_evaluation_do_not_depend_on_the_batch_and_change_no_statistics():
    neuron = layer()
    for seed in range(5):
        neuron(potentials(1, 4, 3, 5, 5, seed=seed))
    before = neuron.eval().running.clone()
    z = potentials(1, 4, 3, 5, 5, seed=9)
    together = neuron(z)
    assert torch.equal(together[:, :1], neuron(z[:, :1]))
    assert torch.equal(before, neuron.running)
    assert not torch.equal(neuron.train()(z)[:, :1], neuron(z[:, :1]))


# 8
def test_penalty_has_no_gradient_where_potentials_are_clipped():
    z = potentials(1, 4, 3, 5, 5)
    both = gradients(layer(v=0.8), z, weights=torch.zeros_like(z), lam=1.0)[0]
    clipped = (z <= 0) | (z >= 0.8)
    assert clipped.any() and both[clipped].count_nonzero() == 0
    assert both[~clipped].count_nonzero() == (~clipped).sum()


def test_descent_on_the_penalty_alone_clears_the_neighbourhood_of_the_extremum():
    z = torch.rand(1, 8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    neuron = layer(extremum="tensor")

    def near():
        return ((z - hoyer_extremum(z.clamp(0, 1))).abs() < 0.05).double().mean().item()

    before = near()
    for _ in range(20):
        z = z - 0.01 * gradients(neuron, z, weights=torch.zeros_like(z), lam=1.0)[0]
    assert near() < 0.6 * before


@pytest.mark.parametrize("extremum", ["channel", "tensor", "none"])
def test_the_clip_value_is_trained_by_the_normalised_penalty_only(extremum):
    z = potentials(1, 4, 3, 5, 5)
    v = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(hoyer_square((z / v).clamp(0, 1)), v)
    zero = torch.zeros_like(z)
    found = gradients(layer(v=0.8, penalty="normalised", extremum=extremum), z, zero, 1.0)
    torch.testing.assert_close(found[1], wanted, rtol=1e-9, atol=1e-9)
    clipped = gradients(layer(v=0.8, extremum=extremum), z, zero, 1.0)
    assert clipped[1] == 0
    torch.testing.assert_close(found[0], clipped[0])


def test_gradients_of_spikes_and_penalty_add_up():
    z, weights = potentials(1, 4, 3, 5, 5), potentials(1, 4, 3, 5, 5, seed=1)
    for settings in ({"window": "wide", "penalty": "normalised"}, {}):
        neuron = layer(v=0.9, **settings)
        parts = [gradients(neuron, z, weights), gradients(neuron, z, torch.zeros_like(z), 0.3)]
        both = gradients(neuron, z, weights, 0.3)
        for k in range(2):
            torch.testing.assert_close(both[k], parts[0][k] + parts[1][k])


def reference(z, threshold_of, leak=0.5, soft=True):
    """The multi-step variant as plain operations: potentials and spikes of every step."""
    m, found, spikes = torch.zeros_like(z[0]), [], []
    for now in z:
        m = leak * m + now
        found.append(m)
        threshold = threshold_of(m).view(-1, *[1] * (m.dim() - 2))
        spikes.append((m >= threshold).double())
        m = m - threshold * spikes[-1] if soft else m
    return torch.stack(found), torch.stack(spikes)


def batch_threshold(v):
    return lambda m: v * hoyer_extremum((m.detach() / v).clamp(0, 1), per_channel=m.dim() > 2)


@pytest.mark.parametrize("reset", ["soft", "none"])
def test_several_steps_are_a_leaky_membrane_whose_threshold_is_that_of_the_step(reset):
    z, neuron = potentials(4, 3, 2, 4, 4), layer(2, v=0.8, leak=0.7, reset=reset)
    m, spikes = reference(z, batch_threshold(0.8), 0.7, reset == "soft")
    with penalties(neuron) as found:
        assert torch.equal(neuron(z), spikes)
    wanted = torch.stack([hoyer_square(now.clamp(0, 0.8)) for now in m]).mean()
    torch.testing.assert_close(found[0], wanted)
    assert neuron.batches == 4
    m, spikes = reference(z, lambda m: neuron.threshold(), 0.7, reset == "soft")
    assert torch.equal(neuron.eval()(z), spikes)


@pytest.mark.parametrize("reset", ["soft", "none"])
def test_gradients_of_several_steps_flow_through_the_leak_and_not_through_the_reset(reset):
    z, weights = potentials(4, 3, 2, 4, 4), potentials(4, 3, 2, 4, 4, seed=1)
    neuron = layer(2, v=0.8, leak=0.7, reset=reset)
    found = gradients(neuron, z, weights)
    m, _ = reference(z, batch_threshold(0.8), 0.7, reset == "soft")
    direct = weights * ((m > 0) & (m < 0.8)) * 0.5 / 0.8
    wanted, carried = torch.zeros_like(z), torch.zeros_like(z[0])
    for t in reversed(range(4)):
        carried = direct[t] + 0.7 * carried
        wanted[t] = carried
    torch.testing.assert_close(found[0], wanted)
    torch.testing.assert_close(found[1], -(direct * m).sum() / 0.8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3, 2, 4, 4), (4, 3, 2)])
def test_one_step_at_a_time_equals_the_whole_sequence(training, shape):
    z, one, two = potentials(*shape), layer(2).train(training), layer(2).train(training)
    for neuron in (one, two):
        neuron.running.fill_(0.4)
    whole = one(z)
    with stepping(two):
        parts = torch.cat([two(now) for now in z.split([1, 2, 1])])
    assert torch.equal(whole, parts)
    assert torch.equal(one.running, two.running)


@pytest.mark.skipif(why_not("cpu") is not None, reason="the compiler cannot be used here")
def test_the_compiled_backend_gives_what_the_loop_gives():
    z, weights = potentials(2, 2, 2, 2), potentials(2, 2, 2, 2, seed=1)
    layers = [layer(2, v=0.8, backend=backend, penalty="normalised") for backend in ("reference", "compiled")]
    wanted, found = (gradients(neuron, z, weights, 0.3) for neuron in layers)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(layers[1].running, layers[0].running, rtol=1e-12, atol=0)
    assert layers[1].batches == 2


@pytest.mark.parametrize("shape", [(1, 1, 2, 1, 1), (1, 1, 2), (3, 1, 2)])
def test_one_sample_is_enough(shape):
    neuron = layer(2)
    spikes = neuron(potentials(*shape, shift=1.0))
    assert spikes.shape == shape and set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert neuron.running.isfinite().all()


def test_half_precision_has_statistics_in_single_precision():
    z = potentials(1, 64, 2, 16, 16).bfloat16()
    neuron = HoyerThreshold(2)
    assert neuron(z).dtype == torch.bfloat16
    wanted = hoyer_extremum(z[0].double().clamp(0, 1), per_channel=True).float()
    torch.testing.assert_close(neuron.running / 0.1, wanted, rtol=5e-3, atol=0)


def test_a_number_that_is_none_is_no_silence():
    z = potentials(1, 2, 3, 2, 2)
    z[0, 0, 0, 0, 0] = math.nan
    assert layer()(z).isnan().any()
    assert layer().eval()(z).isnan().sum() == 1


def test_penalties_are_collected_inside_the_context_only():
    neuron, z = layer(), potentials(1, 4, 3, 5, 5)
    with penalties(neuron) as found:
        neuron(z)
        neuron(z)
    neuron(z)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"extremum": "row"}, "extremum 'row' is unknown; allowed: channel"), ({"reset": "hard"}, "allowed: soft, none")],
)
def test_unknown_choices_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        layer(**settings)


def test_currents_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"\[T, B, 3, ...\] is needed, not \[1, 4, 2\]"):
        layer()(potentials(1, 4, 2))
