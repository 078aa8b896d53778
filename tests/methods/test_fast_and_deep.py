"""Fast & Deep: the numbered faithfulness test of its card, its remedies, and the plugin on a task."""

from __future__ import annotations

import math

import pytest
import torch
from central_differences import differences, relative
from scipy.special import lambertw

from harness.plugin import UsageError
from methods.fast_and_deep import FastAndDeep
from methods.nn.event_drive import Constants
from methods.nn.eventprop import EventProp
from methods.nn.first_spike import FirstSpike
from methods.nn.first_spike_loss import SILENT_LABEL, first_spike_gap, first_spike_scores
from methods.nn.lambert import lambert_w0
from methods.nn.spike_times import SILENT
from methods.nn.weight_bumping import FIRST, WeightBumping
from suites.static_vision import Digits

DOUBLE = torch.float64
EQUAL, TWICE = Constants(1.0, 1.0), Constants(2.0, 1.0)


def layer(features_in, features_out, constants, mean=1.0, deviation=0.8, **settings):
    made = FirstSpike(features_in, features_out, constants, **settings).double()
    torch.nn.init.normal_(made.synapse.weight, mean, deviation)
    return made


def inputs(batch=3, features=6, window=3.0):
    times = torch.rand(batch, features, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * window
    times[0, 0] = SILENT
    return times


def weighted(times):
    factors = torch.randn(times.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    return (torch.where(times.isfinite(), times, 0) * factors).sum()


def published(times, weights, constants, threshold=1.0):
    """The spike of one neuron: T for every prefix of the sorted inputs, by the sums of the paper; the earliest that is valid."""
    order = sorted(range(len(times)), key=lambda i: times[i])
    order = [i for i in order if math.isfinite(times[i])]
    a = b = 0.0
    for place, i in enumerate(order):
        t, w = times[i], weights[i]
        a += w * math.exp(t / constants.tau_s)
        if constants.tau_m == constants.tau_s:
            b += w * t / constants.tau_s * math.exp(t / constants.tau_s)
            argument = -(threshold / a) * math.exp(b / a) if a and b / a < 700 else -math.inf
            spike = constants.tau_s * (b / a - lambertw(argument).real) if argument >= -math.exp(-1) else math.inf
        else:
            b += w * math.exp(t / constants.tau_m)
            root = b * b - 4 * a * threshold
            value = 2 * a / (b + math.sqrt(root)) if root >= 0 else -1
            spike = constants.tau_m * math.log(value) if value > 0 else math.inf
        following = times[order[place + 1]] if place + 1 < len(order) else math.inf
        if t < spike <= following and spike < math.inf:
            return spike
    return math.inf


@pytest.mark.parametrize("constants", [EQUAL, TWICE])
def test_spike_times_are_the_earliest_valid_ones_of_all_prefixes(constants):
    torch.manual_seed(0)
    # The potential of unequal time constants is 1 / (tau_m - tau_s) times tau_s of the difference of exponentials: 1 here.
    neurons, times = layer(6, 40, constants), inputs()
    found = neurons(times)[:, :, 0]
    rows = neurons.synapse.weight.tolist()
    wanted = torch.tensor([[published(sample, row, constants) for row in rows] for sample in times[:, :, 0].tolist()], dtype=DOUBLE)
    assert 20 < wanted.isfinite().sum() < 119
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


# 4
def test_4_own_lambert_function_is_the_library_s():
    z = -torch.cat(
        [torch.rand(2000, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) / math.e, torch.logspace(-300, -2, 200, dtype=DOUBLE)]
    )
    wanted = torch.from_numpy(lambertw(z.numpy()).real)
    assert (lambert_w0(z) - wanted).abs().max() < 1e-9
    assert lambert_w0(torch.tensor([-math.exp(-1), 0.0], dtype=DOUBLE)).tolist() == pytest.approx([-1, 0], abs=1e-7)
    assert lambert_w0(torch.tensor([-0.5, 0.5], dtype=DOUBLE)).isnan().all()
    single = lambert_w0(z[:2000].float())
    assert (single.double() - wanted[:2000]).abs().max() < 1e-3  # of rounded z, next to the branch point
    assert (single.double() - wanted[:2000])[z[:2000] > -0.36].abs().max() < 1e-6


@pytest.mark.parametrize("constants", [EQUAL, TWICE])
def test_4_potential_at_the_spike_is_the_threshold(constants):
    torch.manual_seed(0)
    neurons, times = layer(6, 40, constants, threshold=0.7), inputs()
    spikes = neurons(times)
    d = (spikes - times.transpose(1, 2)).clamp(min=0)
    d = torch.where(d.isfinite(), d, 0)
    potential = (constants.course(d)[2] * neurons.synapse.weight).sum(2, keepdim=True)
    assert (potential[spikes.isfinite()] - 0.7).abs().max() < 1e-9


@pytest.mark.parametrize("constants", [EQUAL, TWICE])
def test_4_derivatives_are_those_of_finite_differences(constants):
    torch.manual_seed(0)
    one, two = layer(6, 9, constants), layer(9, 3, constants, mean=0.8, deviation=0.5)
    times = inputs().requires_grad_()

    def loss():
        return weighted(two(one(times)))

    assert one(times).isfinite().any()
    assert two(one(times)).isfinite().any()
    loss().backward()
    for values in (one.synapse.weight, two.synapse.weight, times):
        assert relative(values.grad, differences(loss, values)) < 1e-7


@pytest.mark.parametrize("constants", [EQUAL, TWICE])
def test_gradients_are_those_of_eventprop_with_one_spike(constants):
    torch.manual_seed(0)
    closed, times = layer(6, 40, constants), [inputs().requires_grad_() for _ in range(2)]
    solved = EventProp(6, 40, constants, spikes=1).double()
    solved.load_state_dict(closed.state_dict())
    outputs = [part(t) for part, t in zip((closed, solved), times, strict=True)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    for output in outputs:
        weighted(output).backward()
    assert relative(closed.synapse.weight.grad, solved.synapse.weight.grad) < 1e-10
    assert relative(times[0].grad, times[1].grad) < 1e-10


def test_late_inputs_do_not_overflow():
    torch.manual_seed(0)
    neurons, times = layer(6, 40, EQUAL), inputs()
    torch.testing.assert_close(neurons(times + 1e4), neurons(times) + 1e4, rtol=1e-11, atol=0)


def test_spikes_after_the_end_are_left_out():
    torch.manual_seed(0)
    whole, times = layer(6, 40, EQUAL), inputs()
    cut = layer(6, 40, EQUAL, until=2.0)
    cut.load_state_dict(whole.state_dict())
    spikes = whole(times)
    assert (spikes[spikes.isfinite()] > 2).any()
    torch.testing.assert_close(cut(times), spikes.masked_fill(spikes > 2, SILENT))


# Remedies and loss
def test_guard_drops_the_gradient_of_a_neuron_with_a_large_one_and_of_no_other():
    torch.manual_seed(0)
    free, times = layer(6, 40, EQUAL), inputs()
    weighted(free(times)).backward()
    largest = free.synapse.weight.grad.abs().amax(1)
    limit = largest.median().item()
    guarded = layer(6, 40, EQUAL, guard=limit)
    guarded.load_state_dict(free.state_dict())
    weighted(guarded(times)).backward()
    dropped = largest > limit
    assert 0 < dropped.sum() < 40
    assert guarded.synapse.weight.grad[dropped].count_nonzero() == 0
    assert torch.equal(guarded.synapse.weight.grad[~dropped], free.synapse.weight.grad[~dropped])


def silent(*rows):
    """Spike times ``[B, M, 1]`` from rows of 0 (silent) and 1."""
    return torch.where(torch.tensor(rows).bool(), 1.0, SILENT).unsqueeze(2)


def test_bumps_go_to_neurons_with_a_missing_spike_of_the_first_layer_in_need():
    bumping = WeightBumping((0.2, 0.2))
    weights = [torch.zeros(3, 2), torch.zeros(2, 3)]
    assert bumping([silent((1, 0, 1), (1, 1, 0)), silent((0, 0), (0, 0))], weights)
    assert torch.equal(weights[0], torch.tensor([[0, 0], [FIRST, FIRST], [FIRST, FIRST]]))
    assert weights[1].count_nonzero() == 0


def test_bump_doubles_as_long_as_the_same_layer_is_in_need_and_begins_anew_after():
    bumping, weights = WeightBumping((0.0, 0.0)), [torch.zeros(1, 1), torch.zeros(1, 1)]
    well, ill = silent((1,)), silent((0,))
    for _ in range(3):
        assert bumping([ill, ill], weights)
    assert weights[0].item() == pytest.approx(7 * FIRST)
    assert bumping([well, ill], weights)
    assert weights[1].item() == pytest.approx(FIRST)
    assert not bumping([well, well], weights)
    assert bumping([ill, well], weights)
    assert weights[0].item() == pytest.approx(8 * FIRST)


def test_a_batch_with_too_many_missing_spikes_is_spent_on_a_bump_not_on_gradients():
    torch.manual_seed(0)
    task = Digits()
    batch = next(task.batches("train", 8))
    update = type("Update", (), {"minimise": staticmethod(lambda loss: taken.append(loss))})
    for bumping, mean in ((True, -1.0), (False, -1.0), (True, 1.0)):
        bound, taken = FastAndDeep(task, {"bumping": bumping, "hidden_mean": mean, "last_mean": 1.0}), []
        net = bound.build().train()
        before = net[0].synapse.weight.clone()
        step = next(bound.phases(net)).step
        step(net, batch, update)
        bumped = not torch.equal(before, net[0].synapse.weight)
        assert bumped == (bumping and mean < 0)
        assert bumped != bool(taken)


def test_loss_is_the_formula_and_a_silent_label_costs_a_hundred_without_gradient():
    t = torch.tensor([[0.8, 1.0, SILENT], [0.5, SILENT, 1.0]], dtype=DOUBLE, requires_grad=True)
    loss = first_spike_gap(t, torch.tensor([1, 1]), tau_s=1.0, xi=0.2, alpha=0.005, beta=1.0)
    wanted = math.log(math.exp(0.2 / 0.2) + 1) + 0.005 * math.e
    assert loss.item() == pytest.approx((wanted + SILENT_LABEL) / 2)
    loss.backward()
    assert torch.equal(t.grad[1], torch.zeros(3, dtype=DOUBLE))
    assert t.grad[0, 0] < 0 < t.grad[0, 1]


def test_scores_prefer_the_earliest_of_those_that_have_fired_until_then():
    t = torch.tensor([[0.03, 0.02, SILENT]])
    scores = first_spike_scores(t, torch.tensor([0.01, 0.025, 0.06]), end=0.06, scale=0.002)
    assert scores[0].count_nonzero() == 0
    assert scores[1:].argmax(2).flatten().tolist() == [1, 1]
    assert scores[1, 0, 0] == 0 < scores[2, 0, 0]


# The plugin
@pytest.mark.parametrize("taus", ["equal", "double"])
def test_a_training_step_changes_weights_by_finite_gradients(taus):
    torch.manual_seed(0)
    task = Digits()
    bound = FastAndDeep(task, {"taus": taus, "bumping": False, "input_noise": 0.1})
    net = bound.build().train()
    update = type("Update", (), {"minimise": staticmethod(lambda loss: loss.backward())})
    loss = next(bound.phases(net)).step(net, next(task.batches("train", 16)), update)
    assert loss.isfinite()
    assert all(p.dtype == DOUBLE and p.grad.isfinite().all() and p.grad.count_nonzero() for p in net.parameters())


def test_two_classes_of_points_are_learnt():
    torch.manual_seed(0)
    points = torch.rand(300, 2, dtype=DOUBLE)
    classes = (points.sum(1) > 1).long()
    times = torch.cat([points, 1 - points, torch.full((300, 1), 0.45)], 1).unsqueeze(2) * 2
    one, two = layer(5, 20, EQUAL, 1.5, 0.8, guard=0.2), layer(20, 2, EQUAL, 0.5, 0.8, guard=0.2)
    optimizer = torch.optim.Adam([*one.parameters(), *two.parameters()], lr=0.02)
    bumping = WeightBumping((0.3, 0.0))
    for _ in range(10):
        for chosen in torch.randperm(300).split(30):
            hidden = one(times[chosen])
            output = two(hidden)
            if not bumping((hidden, output), (one.synapse.weight, two.synapse.weight)):
                optimizer.zero_grad()
                first_spike_gap(output[:, :, 0], classes[chosen], 1.0, 0.2, 0.005, 1.0).backward()
                optimizer.step()
    with torch.no_grad():
        assert (two(one(times))[:, :, 0].argmin(1) == classes).double().mean() > 0.85


def test_recipes_are_the_published_ones():
    task = Digits()
    task.budget_name = "paper"
    bound = FastAndDeep(task, track="recipe")
    assert (bound.training.lr, bound.training.batch_size, bound.training.epochs) == (0.003, 50, 200)
    assert (bound.options.hidden, bound.options.deviation, bound.options.input_noise) == ((128,), 0.8, 0.3)
    assert [round(bound.training.lr_share(epoch), 3) for epoch in (9, 10, 20)] == [1, 0.9, 0.81]


def test_report_counts_silent_neurons_and_what_is_stored():
    torch.manual_seed(0)
    bound = FastAndDeep(Digits())
    found = bound.report(bound.build())
    assert found["silent"].keys() == {"0", "1"}
    assert found["stored_floats_per_spike"] > 2


def test_what_has_no_closed_form_is_refused():
    with pytest.raises(ValueError, match="tau_m must be tau_s or 2 tau_s"):
        FirstSpike(2, 2, Constants(3.0, 1.0))
    with pytest.raises(ValueError, match="threshold must be positive"):
        FirstSpike(2, 2, EQUAL, threshold=0.0)
    with pytest.raises(UsageError, match="taus"):
        FastAndDeep(Digits(), {"taus": "triple"})
