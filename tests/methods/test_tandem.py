"""Tandem learning: the numbered faithfulness tests of its card (1 to 5), its options, and the progressive variant."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.loop import train
from harness.meters.memory import SavedTensors
from harness.plugin import UnfitError
from harness.registry import Registries
from harness.task import Batch
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.paired_neuron import PairedNeuron
from methods.nn.paired_synapse import PairedConv2d, PairedLinear
from methods.nn.watch import Watch
from methods.tandem import LateResetLIF, Tandem
from suites.static_vision import Digits
from tests.methods.counting_update import CountingUpdate

DOUBLE = torch.float64


def tandem(steps: int = 4, task=None, **options) -> tuple[Tandem, nn.Module]:
    method = Tandem(task or Digits(), {"dropout": 0.0, **options}, steps=steps)
    torch.manual_seed(0)
    return method, method.build()


def batch(method: Tandem, size: int = 6):
    found = next(method.task.batches("train", size, size))
    return found._replace(inputs=found.inputs.to(DOUBLE))


def neurons(net: nn.Module) -> list[PairedNeuron]:
    return [module for module in net.modules() if isinstance(module, PairedNeuron)]


# 1
@pytest.mark.parametrize("steps", [1, 4])
def test_counts_of_the_ann_branch_are_those_of_the_spiking_network(steps):
    method, net = tandem(steps)
    with Watch(neurons(net)) as seen:
        method.branch(net, next(method.task.batches("train", 6, 6)).inputs)
    assert len(seen.outputs) == 4
    for pair in seen.outputs:
        assert set(pair.spikes.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(pair.counts, pair.spikes.sum(0, keepdim=True))
        assert pair.counts.sum() > 0 and pair.counts.max() <= steps


def backward_of_norm(g, y, norm):
    """Gradients of y, gamma and beta of batch normalisation with the statistics of ``y [B, C, H, W]``."""
    dims = (0, 2, 3)
    std = (y.var(dims, correction=0, keepdim=True) + norm.eps).sqrt()
    normed = (y - y.mean(dims, keepdim=True)) / std
    gamma = norm.weight.view(-1, 1, 1)
    inner = g - g.mean(dims, keepdim=True) - normed * (g * normed).mean(dims, keepdim=True)
    return gamma / std * inner, (g * normed).sum(dims), g.sum(dims)


def free_running(net, counts):
    """The ANN with the same weights on its own activations."""
    for module in net.backbone.modules():
        if isinstance(module, Layer):
            conv, n = module.synapse, module.synapse.norm
            z = F.conv2d(counts, conv.weight, conv.bias, padding=1)
            counts = F.batch_norm(z, None, None, n.weight, n.bias, training=True, eps=n.eps).relu()
            if module in [stage[1] for stage in net.backbone.stages]:
                counts = F.avg_pool2d(counts, 2)
    return net.head.readout[1](counts.flatten(1)[None])[0]


# 2
def test_gradients_are_those_of_hand_written_backprop_on_spike_counts_and_not_those_of_the_free_running_ann():
    method, net = tandem()
    net = net.double().train()
    images = batch(method)
    layers = [module for module in net.backbone.modules() if isinstance(module, Layer)]
    with Watch([*[layer.synapse for layer in layers], net.head.readout]) as seen:
        method.step(net, images, CountingUpdate(net))
    given = [pair.counts[0].detach() for pair in seen.inputs]
    free = torch.autograd.grad(method.loss(free_running(net, given[0]), images.targets), layers[0].synapse.weight)[0]
    readout = net.head.readout[1]
    with torch.no_grad():
        logits = F.linear(given[-1], readout.weight, readout.bias)
        error = (logits.softmax(1) - F.one_hot(images.targets, 10)) / len(logits)
        torch.testing.assert_close(readout.weight.grad, error.T @ given[-1])
        torch.testing.assert_close(readout.bias.grad, error.sum(0))
        g = (error @ readout.weight).view(len(logits), -1, 2, 2)
        for position, layer in reversed(list(enumerate(layers))):
            conv, c = layer.synapse, given[position]
            if position in (1, 3):  # average pooling follows
                g = g.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
            y = F.conv2d(c, conv.weight, conv.bias, padding=1)
            z = F.batch_norm(y, None, None, conv.norm.weight, conv.norm.bias, training=True, eps=conv.norm.eps)
            dy, gamma, beta = backward_of_norm(g * (z > 0), y, conv.norm)
            torch.testing.assert_close(conv.norm.weight.grad, gamma, rtol=1e-7, atol=1e-10)
            torch.testing.assert_close(conv.norm.bias.grad, beta, rtol=1e-7, atol=1e-10)
            weight = nn.grad.conv2d_weight(c, conv.weight.shape, dy, padding=1)
            torch.testing.assert_close(conv.weight.grad, weight, rtol=1e-7, atol=1e-10)
            torch.testing.assert_close(conv.bias.grad, dy.sum((0, 2, 3)), rtol=0, atol=1e-10)
            g = nn.grad.conv2d_input(c.shape, conv.weight, dy, padding=1)
    assert (free - layers[0].synapse.weight.grad).norm() > 0.1 * free.norm()


# 3
@pytest.mark.parametrize("steps", [4, 16, 64])
def test_the_count_of_constant_input_is_within_one_of_the_clipped_activation(steps):
    torch.manual_seed(1)
    norm = BatchNorm(5, eps=1e-4)
    layer = Layer(PairedConv2d(2, 5, 3, 1, steps, norm), nn.Identity(), PairedNeuron(Tandem(Digits()).spiking(5)))
    layer.synapse.bias.data.normal_(std=3)
    layer = layer.double().eval()
    norm.running_var.fill_(1 - norm.eps)
    x = 4 * torch.rand(1, 3, 2, 6, 6, dtype=DOUBLE)
    with torch.no_grad():
        count = layer(x.expand(steps, -1, -1, -1, -1)).sum(0)
        charge = F.conv2d(steps * x[0], layer.synapse.weight, layer.synapse.bias, padding=1)
    assert (count - charge.relu().clamp(max=steps)).abs().max() <= 1
    assert (count == 0).any() and (count == steps).any() and ((count > 0) & (count < steps)).any()


# 4
def test_what_is_saved_for_the_backward_pass_does_not_depend_on_t():
    found = []
    for steps in (4, 32):
        method, net = tandem(steps)
        images = next(method.task.batches("train", 2, 2))
        with SavedTensors(net.train()) as saved:
            method.step(net, images, CountingUpdate(net))
        found.append(saved.peak)
    assert found[0] == found[1] > 0


# 5
def test_folding_is_batch_normalisation_of_running_statistics_and_that_of_the_code_up_to_its_missing_eps():
    _, net = tandem()
    conv = net.backbone.stages[0][0].synapse.double()
    n = conv.norm
    n.running_mean.normal_()
    n.running_var.uniform_(0.5, 2)
    x = torch.rand(3, 1, 8, 8, dtype=DOUBLE)
    weight, bias = conv.folded()
    folded = F.conv2d(x, weight, 4 * bias, padding=1)
    y = F.conv2d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(folded, F.batch_norm(y, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps), atol=1e-10, rtol=0)
    r = n.weight / n.running_var.sqrt()
    code = F.conv2d(x, r.view(-1, 1, 1, 1) * conv.weight, r * (conv.bias - n.running_mean) + n.bias, padding=1)
    torch.testing.assert_close(folded, code, atol=1e-3, rtol=0)
    torch.testing.assert_close(weight, r.view(-1, 1, 1, 1) * conv.weight, rtol=1.01e-4, atol=0)


def test_a_dead_channel_is_folded_to_numbers():
    _, net = tandem()
    conv = net.backbone.stages[0][0].synapse
    conv.norm.running_var.zero_()
    assert all(part.isfinite().all() for part in conv.folded())


def test_the_answer_is_the_read_out_of_the_last_counts():
    method, net = tandem()
    inputs = next(method.task.batches("validation", 8, 8)).inputs
    with torch.no_grad(), Watch([net.eval().head.readout]) as seen:
        outputs = method.predict(net, inputs).outputs
        branch = method.branch(net, inputs)[0]
        readout = net.head.readout[1]
        counts = seen.inputs[0].cumsum(0)
        for t in range(4):
            torch.testing.assert_close(outputs[t], 4 / (t + 1) * F.linear(counts[t], readout.weight) + readout.bias)
    torch.testing.assert_close(outputs[-1], branch)


def test_dropout_acts_on_the_counts_of_training_only():
    method, net = tandem(dropout=0.5)
    inputs = next(method.task.batches("validation", 8, 8)).inputs
    with torch.no_grad(), Watch([m for m in net.modules() if isinstance(m, PairedLinear)]) as seen:
        method.branch(net.train(), inputs)
        method.branch(net.eval(), inputs)
    kept, whole = (pair.counts for pair in seen.inputs)
    assert kept.count_nonzero() < 0.8 * whole.count_nonzero()


def test_the_first_counts_of_events_are_the_sum_of_their_frames():
    task = Registries().tasks.load("events/digits-saccade")()
    method, net = tandem(task=task)
    frames = torch.rand(2, task.steps, *task.input_shape)
    images = Batch(frames, torch.tensor([0, 1]), torch.arange(2))
    first = net.backbone.stages[0][0].synapse
    with Watch([first]) as seen:
        method.step(net.train(), images, CountingUpdate(net))
    torch.testing.assert_close(seen.inputs[0].counts[0], frames.sum(1))
    assert torch.equal(seen.inputs[0].spikes, frames.transpose(0, 1))


@pytest.mark.parametrize("leak", [0.5, 1.0])
def test_the_reset_of_a_step_comes_after_the_leak_of_the_next(leak):
    method, _ = tandem(leak=leak)
    neuron = method.spiking(3)
    current = torch.rand(12, 2, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    m = o = torch.zeros(2, 3, dtype=DOUBLE)
    expected = []
    for now in current:
        m = leak * m + now - o
        o = (m >= 1).double()
        expected.append(o)
    assert torch.equal(neuron(current), torch.stack(expected))
    assert isinstance(neuron, LateResetLIF) == (leak < 1)
    assert torch.equal(LIF(leak, 1.0, "soft")(current), torch.stack(expected)) == (leak == 1)


def test_scales_start_from_a_normal_law_of_deviation_two_or_from_one():
    scales = [tandem(gamma=gamma)[1].backbone.stages[1][1].synapse.norm.weight for gamma in ("normal", "one")]
    assert 1.5 < scales[0].std() < 2.5 and scales[0].min() < 0
    assert (scales[1] == 1).all()


def test_cifarnet_has_the_layers_of_the_code():
    with torch.device("meta"):
        backbone = Tandem(Registries().tasks.load("static/cifar10")(), {"net": "cifarnet"}).backbone()
    shapes = [(m.in_channels, m.out_channels, m.stride[0]) for m in backbone.modules() if isinstance(m, PairedConv2d)]
    assert shapes == [(3, 128, 1), (128, 256, 2), (256, 512, 2), (512, 1024, 1), (1024, 512, 1), (512 * 8 * 8, 1024, 1)]


def test_cifarnet_trains_and_answers():
    method, net = tandem(2, net="cifarnet")
    images = next(method.task.batches("train", 2, 2))
    assert method.step(net.train(), images, CountingUpdate(net)).isfinite()
    assert method.predict(net.eval(), images.inputs).outputs.shape == (2, 2, 10)
    assert net.backbone.levels[0].features == 1024


def test_recipes_are_those_of_the_released_scripts(monkeypatch):
    monkeypatch.setattr(Digits, "budgets", {"paper": Digits.budgets["smoke"]})
    method = Tandem(Digits("paper"), track="recipe")
    t = method.training
    assert (t.optimizer, t.lr, t.epochs, method.steps, method.options.net) == ("adam", 1e-3, 150, 1, "cifarnet")
    assert [t.lr_share(epoch) for epoch in (49, 50, 100)] == pytest.approx([1, 0.1, 0.01])
    method = Tandem(Digits("paper"), {"progressive": True}, track="recipe")
    assert (method.steps, method.training.weight_decay, method.training.batch_size) == (16, 1e-5, 512)


def test_networks_and_variants_without_a_use_are_refused():
    with pytest.raises(UnfitError, match="classifies images"):
        Tandem(Registries().tasks.load("detection/digit-scenes")(), {"net": "cifarnet"})
    with pytest.raises(UnfitError, match="residual sums"):
        Tandem(Registries().tasks.load("static/cifar10")("paper"), {"progressive": True})
    assert "order of a sequence" in Tandem.supports(Registries().tasks.load("sequences/adding")())


def test_the_progressive_variant_trains_a_relu_network_and_then_replaces_every_layer():
    method = Tandem(Digits(), {"progressive": True, "gamma": "one"}, steps=8, training={"epochs": 4, "batch_size": 256})
    torch.manual_seed(0)
    net = method.build()
    found = train(method, net, seed=0)
    assert [trace.phase for trace in found.traces] == ["ann"] * 2 + ["layers"] * 2
    thresholds = method.report(net)["thresholds"]
    assert [unit.neuron.threshold for unit in neurons(net)] == thresholds
    inputs = next(method.task.batches("validation", 64)).inputs
    sequence = method.encode(inputs)
    assert torch.equal(sequence[0], inputs) and sequence[1:].count_nonzero() == 0
    with torch.no_grad():
        outputs = net(sequence)
        spikes = net.backbone(sequence)[-1].sum(0).flatten(1)
    readout = net.head.readout[1]
    torch.testing.assert_close(outputs.mean(0), F.linear(spikes, readout.weight, readout.bias), rtol=1e-4, atol=1e-4)
    assert method.report(net)["spiking_validation"] > 0.5
