"""Proxy learning: the numbered faithfulness tests of its card, and the plugin on tasks."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.evaluate import evaluate
from harness.loop import train
from harness.meters.memory import SavedTensors
from harness.plugin import UnfitError
from harness.registry import Registries
from harness.task import Backbone, Batch
from methods.nn.residual import MaxPool2d
from methods.nn.stepping import stepping
from methods.nn.twin import TwinBatchNorm, TwinNeuron, analog
from methods.proxy import Proxy, ties
from suites.static_vision import Digits
from tests.methods.counting_update import CountingUpdate
from tests.methods.test_segment_conversion import Squares

DOUBLE = torch.float64
B, K = 6, 10


def digits(**changes):
    task = Digits()
    task.budget = replace(task.budget, backbone=Backbone("conv", (4, 6)), **changes)
    return task


def proxy(steps=5, warm=20, **options):
    """A method, its network in double precision, lively, and a batch."""
    method = Proxy(digits(), {"threshold": 0.5, **options}, steps=steps)
    torch.manual_seed(0)
    net = method.build().double()
    nn.init.normal_(net.head.readout.weight, std=0.3)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(B, 1, 8, 8, dtype=DOUBLE, generator=generator)
    with torch.no_grad():
        for _ in range(warm):  # running statistics as after an epoch
            net(method.encode(images))
            with analog(net):
                net(images[None])
    return method, net, Batch(images, torch.randint(K, (B,), generator=generator), torch.arange(B))


def gradients(method, net, batch):
    """What a training step leaves, by name."""
    method.step(net, batch, CountingUpdate(net))
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


def both(method, net, batch):
    """Answers of both networks, that of the ReLU network with its graph."""
    with analog(net):
        answers = net(batch.inputs[None])[0]
    with torch.no_grad():
        return answers, net(method.encode(batch.inputs)).sum(0)


# 1
@pytest.mark.parametrize("pool", ["average", "max"])
def test_gradients_are_the_error_of_the_counts_through_the_jacobian_of_the_relu_network(pool):
    method, net, batch = proxy(pool=pool)
    net.eval()
    found = gradients(method, net, batch)
    answers, counts = both(method, net, batch)
    error = 2 * (counts - F.one_hot(batch.targets, K)) / (B * K)
    assert counts.max() > 1
    names, parameters = zip(*net.named_parameters(), strict=True)
    expected = torch.autograd.grad(answers, parameters, error, retain_graph=True)
    own = torch.autograd.grad(F.mse_loss(answers, F.one_hot(batch.targets, K).to(DOUBLE)), parameters)
    for name, right, wrong in zip(names, expected, own, strict=True):
        torch.testing.assert_close(found[name], right, rtol=0, atol=1e-13)
        assert not torch.allclose(right, wrong, rtol=1e-3)


def test_overwriting_the_answers_in_place_as_the_notebook_does_gives_the_same_gradients():
    method, net, batch = proxy()
    net.eval()
    found = gradients(method, net, batch)
    answers, counts = both(method, net, batch)
    answers.data.copy_(counts)
    net.zero_grad()
    F.mse_loss(answers, F.one_hot(batch.targets, K).to(DOUBLE)).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=0, atol=1e-13)


# 2
def test_the_last_layer_learns_from_activations_not_from_spikes():
    method, net, batch = proxy()
    net.eval()
    found = gradients(method, net, batch)["head.readout.weight"]
    _, counts = both(method, net, batch)
    error = 2 * (counts - F.one_hot(batch.targets, K)) / (B * K)
    with torch.no_grad(), analog(net):
        activations = net.backbone(batch.inputs[None])[-1][0].flatten(1)
    spikes = net.backbone(method.encode(batch.inputs))[-1].mean(0).flatten(1)
    torch.testing.assert_close(found, error.T @ activations, rtol=0, atol=1e-13)
    assert not torch.allclose(found, error.T @ spikes, rtol=1e-2)


# 3
def test_gradients_are_exactly_zero_where_the_counts_are_what_is_wanted():
    method, net, batch = proxy()
    net.eval()
    _, counts = both(method, net, batch)
    method.loss = lambda output, targets: F.mse_loss(output, counts)
    assert all(not gradient.any() for gradient in gradients(method, net, batch).values())
    off = Proxy(digits(), {"threshold": 0.5, "proxy": False}, steps=5)
    off.loss = method.loss
    assert all(gradient.any() for gradient in gradients(off, net, batch).values())


# 4
def test_what_is_saved_for_the_backward_pass_does_not_grow_with_time():
    peaks = []
    for steps in (5, 20, 80):
        method, net, batch = proxy(steps, warm=0)
        with SavedTensors(net) as saved:
            method.step(net, batch, CountingUpdate(net))
        peaks.append(saved.peak)
    assert peaks[0] == peaks[1] == peaks[2] > 0


def test_the_spiking_pass_has_no_graph():
    method, net, batch = proxy()
    seen = []
    net.output.spiking.register_forward_hook(lambda module, args, spikes: seen.append(spikes.requires_grad))
    method.step(net, batch, CountingUpdate(net))
    assert seen == [False]


# 5
def test_the_relu_network_does_not_see_how_long_the_spiking_one_runs():
    found = []
    for steps in (2, 9):
        method, net, batch = proxy(steps)
        net.train()
        method.step(net, batch, CountingUpdate(net))
        found.append(method.predict_ann(net.eval(), batch.inputs).final())
    assert torch.equal(*found)


# 6
def test_parameters_stay_shared_through_updates_conversions_copies_and_loading():
    method, net, batch = proxy()
    where = {name: parameter.data_ptr() for name, parameter in net.named_parameters()}
    optimizer = torch.optim.Adam(net.parameters())
    gradients(method, net, batch)
    optimizer.step()
    assert where == {name: parameter.data_ptr() for name, parameter in net.named_parameters()}
    net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})
    for network in (net, net.float(), copy.deepcopy(net)):
        norms = [module for module in network.modules() if isinstance(module, TwinBatchNorm)]
        assert len(norms) == 4
        for norm in norms:
            assert norm.spiking.weight is norm.analog.weight
            assert norm.spiking.bias is norm.analog.bias
            assert norm.spiking.running_mean.data_ptr() != norm.analog.running_mean.data_ptr()
            assert norm.spiking.running_var.data_ptr() != norm.analog.running_var.data_ptr()


def test_storages_pointed_at_each_other_would_part_when_converted():
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    two.weight.data = one.weight.data
    assert one.weight.data_ptr() == two.weight.data_ptr()
    one.double(), two.double()
    assert one.weight.data_ptr() != two.weight.data_ptr()


# 7
def test_running_statistics_freeze_after_the_first_epoch_while_affine_weights_learn():
    method = Proxy(digits(train_samples=64), steps=3, training={"epochs": 3})
    torch.manual_seed(0)
    net = method.build()
    (phase,) = list(method.phases(net))
    freeze, seen = phase.on_epoch, []

    def look(epoch, epochs):
        norms = [module for module in net.modules() if isinstance(module, TwinBatchNorm)]
        spiking, relu = ([norm.running_var.clone() for norm in part] for part in ([n.spiking for n in norms], [n.analog for n in norms]))
        seen.append({"spiking": spiking, "analog": relu, "affine": [norm.analog.weight.clone() for norm in norms]})
        freeze(epoch, epochs)

    phase.on_epoch = look
    method.phases = lambda net: iter([phase])
    train(method, net, seed=0)
    look(3, 3)
    for kind in ("spiking", "analog"):
        for start, first, *_, last in zip(*(looks[kind] for looks in seen), strict=True):
            assert not torch.equal(start, first)
            assert torch.equal(first, last)
    for _, first, *_, last in zip(*(looks["affine"] for looks in seen), strict=True):
        assert not torch.equal(first, last)


# 8
def test_ties_are_wrong_unless_the_first_or_a_potential_says_otherwise():
    counts = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [2, 1, 0, 0]])
    argmax, tied, any_tie = ties(counts, torch.tensor([1, 3, 0]))
    assert argmax.tolist() == [False, False, True]
    assert tied.tolist() == [True, True, False]
    assert any_tie.tolist() == [True, True, True]


def test_potentials_break_ties_of_counts_and_overrule_no_spike():
    method, net, batch = proxy()
    net.eval()
    outputs = method.predict(net, batch.inputs).outputs
    with torch.no_grad(), stepping(net):
        counts = torch.zeros(B, K, dtype=DOUBLE)
        for now, answer in zip(method.encode(batch.inputs).split(1), outputs, strict=True):
            counts += net(now)[0]
            (v,) = net.output.spiking.carried()
            torch.testing.assert_close(answer, counts + 1e-3 * v)
    assert torch.equal(outputs[-1].round(), counts)
    assert counts.amax() > 0
    plain = Proxy(digits(), {"tie": 0.0}, steps=5).predict(net, batch.inputs).final()
    assert torch.equal(plain, counts)


# 9
def test_a_batch_is_learnt():
    method, net, batch = proxy(8, threshold=2.0)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for epoch in range(60):
        net.train(epoch < 5)
        losses.append(method.step(net, batch, CountingUpdate(net)).item())
        optimizer.step()
    assert min(losses) < 0.5 * losses[0]


# The plugin


def test_without_proxy_the_relu_network_learns_by_its_own_error_and_no_spike_is_computed():
    method, net, batch = proxy(proxy=False)
    net.eval()
    net.output.spiking.register_forward_hook(lambda *_: pytest.fail("the spiking network ran"))
    found = gradients(method, net, batch)
    net.zero_grad()
    with analog(net):
        F.mse_loss(net(batch.inputs[None])[0], F.one_hot(batch.targets, K).to(DOUBLE)).backward()
    assert all(torch.equal(found[name], parameter.grad) for name, parameter in net.named_parameters())


def test_without_proxy_the_statistics_of_spikes_are_taken_after_training():
    method = Proxy(digits(train_samples=64), {"proxy": False}, steps=3, training={"epochs": 1})
    torch.manual_seed(0)
    net = method.build()
    phases = method.phases(net)
    assert next(phases).name == "ann"
    norms = [module for module in net.modules() if isinstance(module, TwinBatchNorm)]
    before = [norm.analog.running_mean.clone() for norm in norms]
    assert not any(norm.spiking.running_mean.any() for norm in norms)
    assert next(phases, None) is None
    assert all(norm.spiking.running_mean.any() for norm in norms)
    assert all(torch.equal(norm.analog.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    assert not any(module.training for module in net.modules())


def test_statistics_of_spikes_are_updated_at_every_step_and_of_a_constant_current_once():
    x = torch.randn(3, 4, 2, 5, 5)
    norm, other = TwinBatchNorm(2), nn.BatchNorm2d(2)
    with torch.no_grad():
        y = norm(x)
        expected = torch.stack([other(now) for now in x])
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(norm.spiking.running_var, other.running_var)
        assert torch.equal(norm.analog.running_mean, torch.zeros(2))
        still, once = TwinBatchNorm(2), nn.BatchNorm2d(2)
        torch.testing.assert_close(still(x[:1].expand(3, -1, -1, -1, -1)), once(x[0]).expand(3, -1, -1, -1, -1))
        torch.testing.assert_close(still.spiking.running_mean, once.running_mean)


def test_neurons_keep_everything_until_they_fire_at_two_and_start_again_at_zero():
    neuron = Proxy(digits()).neuron(1)
    current = torch.tensor([1.5, -0.5, 1.0, 3.5, 0.5, 1.5]).view(6, 1, 1)
    assert neuron(current).flatten().tolist() == [0, 0, 1, 1, 0, 1]  # potentials 1.5 1.0 2.0>0 3.5>0 0.5 2.0>0
    with analog(neuron):
        assert torch.equal(neuron(current), current.relu())


def test_maximum_pooling_keeps_spikes_spikes():
    method, net, batch = proxy(pool="max")
    seen = []
    for module in net.modules():
        if isinstance(module, MaxPool2d):
            module.register_forward_hook(lambda module, args, out: seen.append(out))
    method.predict(net, batch.inputs)
    assert len(seen) == 2
    assert all(((out == 0) | (out == 1)).all() for out in seen)


def test_the_network_of_the_notebook_has_its_layers():
    method = Proxy(digits(), {"network": "paper"})
    shapes = [tuple(m.weight.shape[:2]) for m in method.build().modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert shapes == [(128, 1), (128, 128), (128, 128), (2560, 512), (1152, 2560), (256, 1152), (10, 256)]
    assert not any(m.bias is not None for m in method.build().modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def test_the_recipe_is_that_of_the_notebook():
    task = Registries().tasks.load("static/fashion-mnist")("paper")
    method = Proxy(task, track="recipe")
    t, o = method.training, method.options
    assert (t.optimizer, t.lr, t.weight_decay, t.schedule) == ("adam", 1e-4, 1e-6, "constant")
    assert (t.epochs, t.batch_size, t.augment) == (100, 100, True)
    assert (o.pool, o.network, o.betas, o.threshold, method.steps) == ("max", "paper", (0.8, 0.99), 2.0, 15)
    (group,) = next(method.phases(nn.Linear(1, 1))).parameters
    assert group["betas"] == (0.8, 0.99)


def test_frames_of_events_are_summed_for_the_relu_network():
    task = Registries().task("events/digits-saccade")
    method = Proxy(task)
    torch.manual_seed(0)
    net = method.build().eval()
    inputs = next(task.batches("test", 3)).inputs
    with torch.no_grad(), analog(net):
        expected = net(inputs.sum(1)[None])[0]
    torch.testing.assert_close(method.predict_ann(net, inputs).final(), expected.detach())


def test_segmentation_counts_spikes_of_pixels_and_leaves_out_those_without_a_class():
    method = Proxy(digits())
    output = torch.randn(2, K, 3, 3, requires_grad=True)
    targets = torch.randint(K, (2, 3, 3), dtype=torch.uint8)
    targets[0, :2] = 255
    loss = method.loss(output, targets)
    known = [(b, i, j) for b in (0, 1) for i in range(3) for j in range(3) if (b, i) not in ((0, 0), (0, 1))]
    rows = [(output[b, :, i, j] - F.one_hot(targets[b, i, j].long(), K)).square() for b, i, j in known]
    torch.testing.assert_close(loss, torch.stack(rows).mean())
    nothing = method.loss(output, torch.full_like(targets, 255))
    assert nothing == 0
    nothing.backward()


def test_segmentation_trains_and_reports():
    method = Proxy(Squares(), steps=8)
    torch.manual_seed(0)
    net = method.build()
    train(method, net, seed=0)
    assert evaluate(method, net, "test").metrics["miou"] > 0.7  # all background: 0.4
    figures = method.report(net)
    assert 0.8 < figures["argmax_accuracy"] <= figures["tie_as_correct"] <= 1
    assert figures["agreement"] > 0.8


def test_the_report_tells_ties_and_twins_apart():
    method = Proxy(digits(train_samples=32), {"threshold": 1e6}, steps=2)  # silent: every maximum is tied
    torch.manual_seed(0)
    figures = method.report(method.build().eval())
    zeros = (method.task.split("validation").targets == 0).double().mean().item()
    assert figures["argmax_accuracy"] == pytest.approx(zeros)
    assert figures["tied_maximum"] == figures["tie_as_correct"] == 1


def test_what_it_cannot_do_has_a_reason():
    registries = Registries()
    assert "boxes" in Proxy.supports(registries.task("detection/digit-scenes"))
    assert "order" in Proxy.supports(registries.task("sequences/digits-pixels"))
    assert Proxy.supports(registries.task("static/digits")) is None
    with pytest.raises(UnfitError, match="network = 'task'"):
        Proxy(registries.task("detection/nuclei-segmentation"), {"network": "paper"})


def test_the_analog_pass_ends_with_its_context_even_by_an_error():
    net = TwinNeuron(nn.Identity(), nn.ReLU())
    with pytest.raises(KeyError), analog(net):
        assert not net.is_spiking
        raise KeyError
    assert net.is_spiking
