"""EventProp: the numbered faithfulness tests of its card, and the plugin on a task."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from central_differences import differences, relative

from harness.meters.memory import SavedTensors
from harness.plugin import UsageError
from harness.registry import Registries
from methods.eventprop import EventProp as Plugin
from methods.nn.event_drive import Constants
from methods.nn.event_layer import EventLinear
from methods.nn.eventprop import EventProp
from methods.nn.first_spike_loss import first_spike_softmax
from methods.nn.leaky_peak import LeakyPeak
from methods.nn.multi_spike import Lif, MultiSpike
from methods.nn.spike_times import SILENT, first
from suites.static_vision import Digits

PUBLISHED = Constants(20.0, 5.0)  # milliseconds
DOUBLE = torch.float64


def layer(features_in, features_out, constants=PUBLISHED, spikes=10, mean=1.5, deviation=0.78, **settings):
    made = EventProp(features_in, features_out, constants, spikes=spikes, **settings).double()
    torch.nn.init.normal_(made.synapse.weight, mean, deviation)
    return made


def inputs(batch=3, features=5, slots=2, window=30.0, seed=0):
    times = torch.rand(batch, features, slots, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)) * window
    if slots > 1:
        times[0, 0, 1] = SILENT
    return times.sort(2).values


def weighted(times, seed=1):
    """A sum of the spike times with random factors."""
    factors = torch.randn(*times.shape[:2], 10, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))[:, :, : times.shape[2]]
    return (torch.where(times.isfinite(), times, 0) * factors).sum()


def walked(times, weight, constants, dt=1e-4, end=60.0):
    """Spikes of one sample on a fine grid, by the exact flow between grid points and linear interpolation of crossings."""
    tau_m, tau_s = constants.tau_m, constants.tau_s
    arrivals = sorted((t.item(), i) for i, train in enumerate(times) for t in train if t.isfinite())
    v, i, train = torch.zeros(len(weight), dtype=DOUBLE), torch.zeros(len(weight), dtype=DOUBLE), [[] for _ in weight]
    leak, decay = math.exp(-dt / tau_m), math.exp(-dt / tau_s)
    for step in range(round(end / dt)):
        now = step * dt
        while arrivals and arrivals[0][0] <= now:
            i = i + weight[:, arrivals.pop(0)[1]]
        after = v * leak + i * (dt / tau_m)
        for n in (after > 1).nonzero().flatten().tolist():
            train[n].append(now + dt * ((1 - v[n]) / (after[n] - v[n])).item())
            after[n] = 0
        v, i = after, i * decay
    return train


def test_spike_times_are_those_of_a_walk_on_a_fine_grid():
    torch.manual_seed(0)
    neurons, times = layer(5, 6, mean=2.0), inputs(batch=1)
    with torch.no_grad():
        found = neurons(times)[0]
    wanted = walked(times[0], neurons.synapse.weight.detach(), PUBLISHED, dt=2e-3)
    assert [int(row.isfinite().sum()) for row in found] == [len(train) for train in wanted]
    assert max(len(train) for train in wanted) >= 3
    for row, train in zip(found, wanted, strict=True):
        assert (row[: len(train)] - torch.tensor(train, dtype=DOUBLE)).abs().max() < 0.02


# 1
@pytest.mark.parametrize("constants", [PUBLISHED, Constants(10.0, 10.0), Constants(4.0, 8.0), Constants(20.0, 10.0)])
def test_1_gradients_of_two_layers_are_those_of_finite_differences(constants):
    torch.manual_seed(0)
    one, two = layer(4, 5, constants, mean=3.0), layer(5, 2, constants, mean=1.0, deviation=0.3)
    times = inputs(2, 4).requires_grad_()

    def loss():
        return weighted(two(one(times)))

    loss().backward()
    assert one(times).isfinite().sum(2).max() > 1
    assert two(one(times)).isfinite().sum(2).max() > 1
    for values in (one.synapse.weight, two.synapse.weight, times):
        assert relative(values.grad, differences(loss, values)) < 1e-6


def test_1_without_the_jump_by_theta_lambda_the_gradient_of_later_spikes_is_wrong(monkeypatch):
    torch.manual_seed(0)
    one, times = layer(5, 8, mean=2.5), inputs()
    wanted = differences(lambda: weighted(one(times)), one.synapse.weight)
    original = torch.autograd.grad(weighted(one(times)), one.synapse.weight)[0]
    output = one(times)
    monkeypatch.setattr("methods.nn.eventprop.adjoint", no_reset)
    broken = torch.autograd.grad(weighted(output), one.synapse.weight)[0]
    assert relative(original, wanted) < 1e-6
    assert relative(broken, wanted) > 1e-2


def no_reset(times, fired, current, errors, constants, threshold):
    """The adjoint of spikes that know nothing of each other."""
    d = fired.unsqueeze(3) - times[:, None, None, :]
    jump = torch.where(fired.isfinite(), errors / (current - threshold), 0).unsqueeze(3)
    leak, _, response = constants.course(torch.where((d > 0) & d.isfinite(), d, 0))
    causal = (d > 0) & d.isfinite()
    return (jump * leak * causal).sum(2), (jump * response * constants.tau_m / constants.tau_s * causal).sum(2)


# 2
def test_2_with_double_time_constant_it_equals_bats_with_weights_over_tau():
    torch.manual_seed(0)
    tau_s, tau = 5.0, 10.0
    here = layer(5, 8, Constants(tau, tau_s), mean=2.5)
    there = MultiSpike(EventLinear(5, 8).double(), Lif(1.0, 1.0, tau_s, 10, 1000.0))
    with torch.no_grad():
        there.synapse.weight.copy_(here.synapse.weight / tau)
    times = [inputs().requires_grad_() for _ in range(2)]
    ours, bats = here(times[0]), there(times[1])
    assert ours.isfinite().sum(2).max() > 1
    assert torch.equal(ours.isfinite(), bats.isfinite())
    assert (ours - bats)[ours.isfinite()].abs().max() < 1e-9
    for output in (ours, bats):
        weighted(output).backward()
    assert relative(tau * here.synapse.weight.grad, there.synapse.weight.grad) < 1e-6
    assert relative(times[0].grad, times[1].grad) < 1e-6


# 3
@pytest.mark.parametrize("constants", [PUBLISHED, Constants(10.0, 10.0), Constants(4.0, 8.0)])
@pytest.mark.parametrize("until", [math.inf, 20.0])
def test_3_gradient_of_the_highest_potential_is_that_of_finite_differences(constants, until):
    torch.manual_seed(0)
    readout = LeakyPeak(5, 6, constants, until).double()
    torch.nn.init.normal_(readout.synapse.weight, 0.3)
    times = inputs().requires_grad_()
    factors = torch.randn(3, 6, dtype=DOUBLE)

    def loss():
        return (readout(times) * factors).sum()

    loss().backward()
    for values in (readout.synapse.weight, times):
        assert relative(values.grad, differences(loss, values)) < 1e-6


def test_3_highest_potential_is_that_of_a_fine_grid():
    torch.manual_seed(0)
    readout, times = LeakyPeak(5, 12, PUBLISHED).double(), inputs()
    torch.nn.init.normal_(readout.synapse.weight, 0.3)
    grid = torch.linspace(0, 200, 40001, dtype=DOUBLE)
    d = grid - times.flatten(1).unsqueeze(2)  # [B, N K, T]
    _, _, response = PUBLISHED.course(torch.where(d > 0, d, 0))
    weight = readout.synapse.weight.detach().repeat_interleave(2, dim=1)
    course = torch.einsum("mn,bnt->bmt", weight, response)
    assert (readout(times) - course.amax(2)).abs().max() < 1e-3
    assert readout(times).min() == 0
    until = torch.tensor([10.0, 35.0], dtype=DOUBLE)
    wanted = torch.stack([course[:, :, grid <= instant].amax(2) for instant in until])
    assert (readout.so_far(times, until) - wanted).abs().max() < 1e-3


# 5
def saved_bytes(layers, times):
    with SavedTensors(layers) as meter:
        output = layers(times)
    return meter.peak, output


def test_5_state_is_one_time_and_one_current_per_spike_slot():
    torch.manual_seed(0)
    neurons, times = layer(5, 8, mean=2.5), inputs()
    saved, output = saved_bytes(neurons, times)
    assert saved == 8 * (times.numel() + 2 * output.numel())


def test_5_ten_times_longer_simulation_of_the_same_spikes_stores_as_much():
    torch.manual_seed(0)
    short, long = layer(5, 8, mean=2.5, until=200.0), layer(5, 8, mean=2.5, until=2000.0)
    long.load_state_dict(short.state_dict())
    times = inputs()
    (one, spikes), (ten, again) = saved_bytes(short, times), saved_bytes(long, times)
    assert one == ten
    assert torch.equal(spikes, again)


# 6
def clocked(weight, times, dt, constants=PUBLISHED, end=40.0):
    """Gradient of the first spike times' sum by Euler steps of both systems: the forward one stores every step."""
    steps = round(end / dt)
    v = i = torch.zeros(len(weight), dtype=DOUBLE)
    arriving = torch.zeros(steps, weight.shape[1], dtype=DOUBLE)
    for n, t in enumerate(times):
        arriving[min(steps - 1, round(t.item() / dt)), n] += 1
    fired, currents = [], []
    for s in range(steps):
        i = i * (1 - dt / constants.tau_s) + weight @ arriving[s]
        v = v + dt / constants.tau_m * (i - v)
        spikes = v > 1
        fired.append(spikes)
        currents.append(i)
        v = torch.where(spikes, 0, v)
    seen = torch.stack(fired).cumsum(0)
    lv = li = torch.zeros(len(weight), dtype=DOUBLE)
    gradient = torch.zeros_like(weight)
    for s in reversed(range(steps)):
        gradient -= constants.tau_s * li.unsqueeze(1) * arriving[s]
        error = (fired[s] & (seen[s] == 1)).to(DOUBLE)
        jump = (lv + error) / (currents[s] - 1)
        li, lv = li + dt / constants.tau_s * (lv - li), lv - dt / constants.tau_m * lv + torch.where(fired[s], jump, 0)
    return gradient


def test_6_clocked_euler_eventprop_converges_to_the_exact_gradient():
    torch.manual_seed(0)
    neurons, times = layer(4, 6, mean=3.0, deviation=0.5), inputs(1, 4, 1, window=10.0, seed=3)
    output = neurons(times)
    assert output[:, :, 0].isfinite().all()
    first(output).sum().backward()
    errors = [
        relative(clocked(neurons.synapse.weight.detach(), times[0, :, 0], dt), neurons.synapse.weight.grad) for dt in (0.2, 0.05, 0.0125)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] > 0.01
    assert errors[2] < 0.01


# Losses and the plugin
def test_first_spike_loss_is_the_formula_and_leaves_silent_neurons_out():
    t = torch.tensor([[0.010, 0.012, SILENT], [0.02, SILENT, 0.01]], dtype=DOUBLE, requires_grad=True)
    loss = first_spike_softmax(t, torch.tensor([1, 1]), 0.0005, 0.0064, 0.003, silent=7.0)
    wanted = -torch.tensor([-20.0, -24.0]).log_softmax(0)[1] + 0.003 * (math.exp(0.012 / 0.0064) - 1)
    assert loss.item() == pytest.approx((wanted.item() + 7) / 2)
    loss.backward()
    assert torch.equal(t.grad[1], torch.zeros(3, dtype=DOUBLE))
    assert t.grad[0, 0] < 0 < t.grad[0, 1]
    assert t.grad[0, 2] == 0


def test_first_spike_column_does_not_depend_on_the_number_of_spikes_allowed():
    torch.manual_seed(0)
    several, times = layer(5, 8, mean=2.5), inputs()
    one = layer(5, 8, spikes=1)
    one.load_state_dict(several.state_dict())
    assert torch.equal(one(times), several(times)[:, :, :1])


def test_long_recordings_neither_overflow_nor_change_what_is_far_away():
    torch.manual_seed(0)
    neurons, times = layer(5, 8, mean=2.5), inputs()
    later = torch.cat([times, times + 1e5], 2)
    found, alone = neurons(later), neurons(times)
    assert (found[:, :, : alone.shape[2]] - alone)[alone.isfinite()].abs().max() < 1e-9
    assert (found.isfinite().sum(2) == 2 * alone.isfinite().sum(2)).all() or neurons.spikes == found.shape[2]


def test_spikes_after_the_end_are_left_out():
    torch.manual_seed(0)
    whole, times = layer(5, 8, mean=2.5), inputs()
    cut = layer(5, 8, until=20.0)
    cut.load_state_dict(whole.state_dict())
    spikes = whole(times)
    assert (spikes[spikes.isfinite()] > 20).any()
    wanted = spikes.masked_fill(spikes > 20, SILENT)
    torch.testing.assert_close(cut(times), wanted[:, :, : cut(times).shape[2]])


def test_silent_inputs_give_silence_and_no_gradient():
    neurons = layer(5, 4)
    output = neurons(torch.full((2, 5, 1), SILENT, dtype=DOUBLE))
    assert output.isinf().all()
    torch.where(output.isfinite(), output, 0).sum().backward()
    assert neurons.synapse.weight.grad.count_nonzero() == 0


def test_yin_yang_is_learnt_with_first_spikes():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    points, classes = yin_yang(600, generator)
    times = torch.cat([points, 1 - points, torch.zeros(600, 1)], 1).unsqueeze(2) * 30.0
    one, two = (EventProp(*sizes, PUBLISHED, spikes=k) for sizes, k in (((5, 60), 4), ((60, 3), 1)))
    torch.nn.init.normal_(one.synapse.weight, 1.5, 0.78)
    torch.nn.init.normal_(two.synapse.weight, 0.93 * 200 / 60, 0.1 * 200 / 60)
    optimizer = torch.optim.Adam([*one.parameters(), *two.parameters()], lr=0.01)
    for _ in range(8):
        for part in torch.randperm(600, generator=generator).split(50):
            optimizer.zero_grad()
            first_spike_softmax(first(two(one(times[part]))), classes[part], 0.5, 6.4, 0.003, 0.0).backward()
            optimizer.step()
    with torch.no_grad():
        assert (first(two(one(times))).argmin(1) == classes).float().mean() > 0.7


def yin_yang(number, generator):
    """Points ``[N, 2]`` of the Yin-Yang set and their classes (yin, yang, dots), equally frequent."""
    points, classes = [], []
    while len(points) < number:
        x, y = torch.rand(2, generator=generator).tolist()
        if math.hypot(x - 0.5, y - 0.5) > 0.5:
            continue
        right, left = math.hypot(x - 0.75, y - 0.5), math.hypot(x - 0.25, y - 0.5)
        yin = 0.1 < left <= 0.25 or (y > 0.5 and right > 0.25)
        kind = 2 if min(right, left) < 0.1 else int(not yin)
        if classes.count(kind) < number // 3:
            points.append((x, y))
            classes.append(kind)
    return torch.tensor(points), torch.tensor(classes)


@pytest.mark.parametrize("loss", ["vmax", "ttfs"])
def test_answers_do_not_depend_on_how_many_instants_are_read_and_end_with_the_loss_s_answer(loss):
    torch.manual_seed(0)
    task = Digits()
    few, many = (Plugin(task, {"loss": loss}, steps=steps) for steps in (1, 5))
    net = few.build().eval()
    batch = next(task.batches("test", 8))
    with torch.no_grad():
        last, curve = few.predict(net, batch.inputs).outputs, many.predict(net, batch.inputs).outputs
        output = net(few.encode(batch.inputs))
    torch.testing.assert_close(curve[-1], last[-1])
    wanted = output if loss == "vmax" else -first(output)
    assert torch.equal(last[-1].argmax(1), wanted.argmax(1))


def test_vmax_loss_is_cross_entropy_and_input_dropout_silences_inputs():
    torch.manual_seed(0)
    task = Digits()
    bound = Plugin(task, {"loss": "vmax", "input_dropout": 0.9})
    logits = torch.randn(4, 10)
    assert torch.equal(bound.spike_loss(logits, torch.arange(4)), F.cross_entropy(logits, torch.arange(4)))
    net, seen = bound.build().train(), []
    net[0].register_forward_pre_hook(lambda module, given: seen.append(given[0].isfinite().float().mean()))
    update = type("Update", (), {"minimise": staticmethod(lambda loss: loss.backward())})
    batch = next(task.batches("train", 32))
    bound.step(net, batch, update)
    assert seen[0] < 0.2 * bound.encode(batch.inputs).isfinite().float().mean()


def test_report_counts_what_is_stored():
    torch.manual_seed(0)
    bound = Plugin(Digits())
    found = bound.report(bound.build())
    assert 2 <= found["stored_floats_per_spike"] < 20
    assert found["silent"].keys() == {"0", "1"}


def test_recipe_is_the_published_one():
    task = Digits()
    task.budget_name = "paper"
    bound = Plugin(task, track="recipe")
    assert (bound.options.loss, bound.options.hidden_mean, bound.options.last_mean) == ("vmax", 4.0, 0.25)
    assert (bound.training.optimizer, bound.training.lr, bound.training.epochs, bound.training.batch_size) == ("adam", 1e-3, 100, 256)
    timed = Plugin(task, {"loss": "ttfs"}, track="recipe")
    assert (timed.training.schedule, timed.training.lr_factor, timed.options.hidden) == ("exponential", 0.95, (200,))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="time constants must be positive"):
        Constants(0.0, 1.0)
    with pytest.raises(ValueError, match="spikes at least 1"):
        EventProp(2, 2, PUBLISHED, spikes=0)
    with pytest.raises(UsageError, match="loss"):
        Plugin(Digits(), {"loss": "count"})


def test_frames_of_events_are_spike_times_that_it_learns_from():
    torch.manual_seed(0)
    task = Registries().task("events/digits-saccade")
    bound = Plugin(task)
    net, batch = bound.build().train(), next(task.batches("train", 4))
    update = type("Update", (), {"minimise": staticmethod(lambda loss: loss.backward())})
    assert bound.step(net, batch, update).isfinite()
    assert all(p.grad.isfinite().all() and p.grad.count_nonzero() for p in net.parameters())
