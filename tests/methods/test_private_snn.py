"""PrivateSNN: the numbered faithfulness tests of its card (1 and 2: test_impressions.py), and the plugin on a small task."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.loop import make_optimizer, train
from harness.plugin import UnfitError
from harness.registry import Registries
from harness.task import Backbone, Data
from methods.nn.calibration import watching
from methods.nn.diet import ThresholdConv2d
from methods.nn.dropout import SequenceDropout
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.relu_twin import relu_twin
from methods.nn.sealed import SealedError
from methods.nn.stepping import stepping
from methods.private_snn import PrivateSnn
from suites.static_vision import Digits

QUICK = {"images": 2, "iterations": 3, "calibration_images": 16}


def small_task(budget: str = "smoke") -> Digits:
    task = Digits()
    task.budget = replace(task.budget, backbone=Backbone("conv", (4, 6)), train_samples=64, validation_samples=16, test_samples=16)
    task.budget_name = budget
    return task


def small(steps: int = 6, **options: object) -> PrivateSnn:
    return PrivateSnn(small_task(), QUICK | options, steps=steps, training={"epochs": 2})


def converted(method: PrivateSnn, count: int = 16):
    """The method's untrained network, its ReLU form as a function of inputs, and the images that thresholds came from, in bytes."""
    torch.manual_seed(0)
    net = method.build().eval()
    original = relu_twin(net)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8)
    method.convert(net, images)
    return net, original, images


def images_of(method: PrivateSnn, split: str = "test") -> torch.Tensor:
    return next(method.task.batches(split)).inputs


# 3
def test_the_first_threshold_is_the_largest_activation_of_the_relu_network_and_the_second_is_that_of_spikes():
    method = small(steps=40, input="analog")
    task = method.task
    torch.manual_seed(0)
    net = method.build()
    activations = {}
    layers = [module for module in net.modules() if isinstance(module, Layer)]
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad(), watching([layer.norm for layer in layers], activations.__setitem__):
        net(method.rates(task.prepare(images.float() / 255))[None])
    peaks = [activations[layer.norm].max().item() for layer in layers]
    method.convert(net, images)
    thresholds = [layer.synapse.threshold.item() for layer in layers]
    assert thresholds[0] == pytest.approx(peaks[0])
    # A spike stands for theta: the currents of layer 2 are those of W_2 s_1, with s_1 of 0 and 1.
    spikes, currents = [], []
    with torch.no_grad(), watching(layers[:1], lambda m, s: spikes.append(s)), watching([layers[1].norm], lambda m, c: currents.append(c)):
        net(method.shown.expand(40, *method.shown.shape))
    second = F.conv2d(spikes[0].flatten(0, 1), layers[1].synapse.weight, padding=1)
    assert (
        thresholds[1] == pytest.approx(second.max().item(), rel=1e-5) == pytest.approx(currents[0].max().item() * thresholds[1], rel=1e-5)
    )
    assert abs(thresholds[1] - peaks[1] / thresholds[0]) > 0.05 * thresholds[1]


def test_scaling_multiplies_the_thresholds():
    found = []
    for scaling in (1.0, 0.5):
        net, _, _ = converted(small(scaling=scaling))
        found.append(torch.stack([m.threshold.detach() for m in net.modules() if isinstance(m, ThresholdConv2d)]))
    torch.testing.assert_close(found[1], 0.5 * found[0])


# 4
def test_rates_converge_to_the_answers_of_the_relu_network_with_the_number_of_steps():
    method = small(steps=50, input="analog", scaling=1.2)  # a margin: thresholds found in 50 steps hold for 2000
    net, original, images = converted(method)
    inputs = method.task.prepare(images.float() / 255)
    with torch.no_grad():
        wanted = method.predict_ann(original, inputs).final()
        errors = []
        for method.steps in (20, 200, 2000):
            errors.append(((method.predict(net, inputs).final() - wanted).abs().max() / wanted.abs().max()).item())
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 0.02


# 5
@pytest.mark.parametrize("keep_scale", [True, False])
def test_the_network_rebuilt_from_the_converted_weights_has_the_answers_of_the_original(keep_scale):
    method = small(keep_scale=keep_scale, scaling=0.7)
    net, original, _ = converted(method)
    inputs = images_of(method)
    with torch.no_grad():
        wanted, found = (method.predict_ann(each, inputs).final() for each in (original, relu_twin(net)))
    assert torch.equal(wanted.argmax(1), found.argmax(1))
    assert len(wanted.argmax(1).unique()) > 1
    product = torch.stack([m.threshold.detach() for m in net.modules() if isinstance(m, ThresholdConv2d)]).prod()
    torch.testing.assert_close(found if keep_scale else product * found, wanted)


# 6
class Watched:
    """A training split that may be read until it is locked."""

    def __init__(self, data: Data) -> None:
        self.data, self.locked, self.reads = data, False, 0

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.reads += 1
        return self._open()[place]

    @property
    def targets(self) -> torch.Tensor:
        return self._open().targets

    def _open(self) -> Data:
        if self.locked:
            raise AssertionError("training data were read after the first stage")
        return self.data


def locked_run(method: PrivateSnn) -> tuple[nn.Module, Watched]:
    """Run all stages by hand; the data lock themselves when the first one is over."""
    data = Watched(method.task.split("train"))
    method.task._splits["train"] = data
    torch.manual_seed(0)
    net = method.build()
    for phase in method.phases(net):
        task = method.task
        optimizer = make_optimizer(list(phase.parameters or net.parameters()), phase.training or method.training)
        for number in range(0, len(task.split("train")), 8):
            batch = task.gather("train", torch.arange(number, min(number + 8, len(task.split("train")))))

            class Update:
                def minimise(self, loss):
                    optimizer.zero_grad()  # noqa: B023 - used within this turn
                    loss.backward()
                    optimizer.step()  # noqa: B023

            (phase.step or method.step)(net, batch, Update())
        data.locked = True
    return net, data


@pytest.mark.parametrize("encrypt", [True, False])
@pytest.mark.parametrize("calibration", ["synthetic", "noise"])
def test_no_training_image_is_read_after_the_first_stage(calibration, encrypt):
    method = small(calibration=calibration, encrypt=encrypt)
    _, data = locked_run(method)
    assert data.reads == 64
    assert method.training_images_read == 0


def test_real_calibration_does_read_training_images_and_they_are_counted():
    with pytest.raises(AssertionError, match="after the first stage"):
        locked_run(small(calibration="real"))
    method = small(calibration="real")
    net = method.build()
    train(method, net, seed=0)
    assert method.training_images_read == 16
    assert method.report(net)["training_images_read"] == 16


def test_a_stage_that_asks_for_training_data_is_refused(monkeypatch):
    method = small()
    monkeypatch.setattr(method, "synthesise", lambda net: next(method.task.batches("train")).inputs)
    with pytest.raises(SealedError):
        train(method, method.build(), seed=0)
    assert method.task is method.real


def test_the_encryption_sees_the_synthetic_images_and_the_answers_of_the_relu_network():
    method = small()
    seen, made = {}, {}
    synthesise, encrypt = method.synthesise, method.encrypt

    def watched(net, batch, update, teacher):
        seen.update({int(i): (x, int(y), teacher[i]) for i, x, y in zip(batch.index, batch.inputs, batch.targets, strict=True)})
        return encrypt(net, batch, update, teacher)

    method.encrypt = watched
    method.synthesise = lambda net: made.setdefault("found", synthesise(net))
    train(method, method.build(), seed=0)
    images, teacher = made["found"]
    assert sorted(seen) == list(range(20))
    for i, (x, y, logits) in seen.items():
        torch.testing.assert_close(x, method.task.prepare(images[i].float() / 255))
        assert torch.equal(logits, teacher[i])
        assert y == teacher[i].argmax()


# 7
def test_the_surrogate_has_a_peak_of_three_tenths_and_vanishes_outside_of_one_threshold():
    neuron = small().spiking()
    potentials = torch.tensor([-0.5, -1e-9, 0.25, 1.0, 1.5, 2.0, 2.5], dtype=torch.float64)
    current = potentials.view(1, -1).clone().requires_grad_()
    spikes = neuron(current)
    (slope,) = torch.autograd.grad(spikes.sum(), current)
    assert spikes.flatten().tolist() == [0, 0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(slope.flatten(), 0.3 * (1 - (potentials - 1).abs()).clamp_min(0))


def test_the_network_is_the_recursion_of_the_card_in_volts():
    torch.manual_seed(0)
    method = small()
    conv = method.conv(1, 3, 3).double()
    conv.set_threshold(0.6)
    x = torch.randn(9, 2, 1, 5, 5, dtype=torch.float64)
    found = Layer(conv, nn.Identity(), method.spiking())(x)
    u = torch.zeros_like(found[0])
    for now, spikes in zip(x, found, strict=True):
        u = u + F.conv2d(now, conv.weight, padding=1)
        z = u / 0.6 - 1
        assert torch.equal(spikes, (z > 0).double())
        u = u - 0.6 * spikes
    assert 0.1 < found.mean() < 0.9


# Poisson input


def test_input_spikes_are_signed_and_follow_the_pixels():
    method = small(steps=4000)
    torch.manual_seed(0)
    pixels = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0]).view(1, 1, 1, 5)
    found = method.encode(method.task.prepare(pixels))
    assert set(found.unique().tolist()) == {-1.0, 0.0, 1.0}
    torch.testing.assert_close(found.mean(0), 2 * pixels - 1, atol=0.04, rtol=0)
    assert not found[:, 0, 0, 0, 2].any()
    assert torch.equal(found[:, 0, 0, 0, 0], -torch.ones(4000))


def test_steps_one_by_one_answer_like_the_whole_sequence():
    method = small()
    net, _, _ = converted(method)
    x = method.encode(images_of(method))
    with torch.no_grad(), stepping(net):
        serial = torch.cat([net(now) for now in x.split(1)])
    torch.testing.assert_close(serial, net(x).detach())


# The encryption


def test_the_loss_is_half_cross_entropy_of_the_mean_output_and_half_distillation_at_temperature_four():
    method = small(steps=5)
    net, _, images = converted(method)
    teacher, classes, losses = torch.randn(16, 10), torch.arange(8), []
    batch = method.task.batch(images[8:], classes, torch.arange(8, 16))

    class Update:
        minimise = staticmethod(losses.append)

    torch.manual_seed(1)
    method.encrypt(net, batch, Update(), teacher)
    torch.manual_seed(1)
    logits = net(method.encode(batch.inputs)).sum(0) / 5
    p, q = (teacher[8:] / 4).softmax(1), (logits / 4).softmax(1)
    wanted = 0.5 * F.cross_entropy(logits, classes) + 8 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(losses[0], wanted)


def test_encryption_changes_all_weights_and_no_threshold():
    method = small(encrypt_lr=1e-2)
    states = []
    encryption = method._encryption
    method._encryption = lambda net, teacher: states.append({k: v.clone() for k, v in net.state_dict().items()}) or encryption(net, teacher)
    torch.manual_seed(0)
    net = method.build()
    phases = [trace.phase for trace in train(method, net, seed=0).traces]
    assert phases == ["ann", "ann", "encrypt"]
    for name, value in net.state_dict().items():
        assert torch.equal(value, states[0][name]) == name.endswith("threshold")
    moved = method.report(net)["weights_moved"]
    assert len(moved) == 5
    assert min(moved) > 1e-3


def test_without_encryption_the_converted_network_is_the_result():
    method = small(encrypt=False)
    net = method.build()
    assert {trace.phase for trace in train(method, net, seed=0).traces} == {"ann"}
    assert "weights_moved" not in method.report(net)


def test_noise_and_real_images_without_encryption_need_no_synthesis():
    for calibration in ("noise", "real"):
        method = small(encrypt=False, calibration=calibration)
        train(method, method.build(), seed=0)
        assert "synthetic_images" not in method.figures


def test_the_encryption_uses_adam_with_amsgrad_and_its_own_drops():
    method = small()
    net, _, _ = converted(method)
    phase = next(method._encryption(net, torch.zeros(20, 10)))
    settings = phase.training
    assert (settings.optimizer, settings.lr, settings.weight_decay, settings.milestones) == ("adam", 1e-3, 5e-4, (0.6, 0.8, 0.9))
    assert make_optimizer(phase.parameters, settings).param_groups[0]["amsgrad"]
    assert phase.epochs == 1


def test_the_read_out_takes_up_the_thresholds_if_asked():
    nets = [converted(small(keep_scale=keep))[0] for keep in (True, False)]
    product = torch.stack([m.threshold.detach() for m in nets[0].modules() if isinstance(m, ThresholdConv2d)]).prod()
    torch.testing.assert_close(nets[0].head.readout.weight, nets[1].head.readout.weight * product)


def test_dropout_follows_layers_that_no_pooling_follows():
    net, _, _ = converted(small(dropout=0.25))
    for stage in net.backbone.stages:
        assert isinstance(stage[0].neuron[1], SequenceDropout)
        assert stage[0].neuron[1].p == 0.25
        assert isinstance(stage[1].neuron, LIF)


def test_figures_of_the_synthesis_are_reported():
    method = small()
    net = method.build()
    train(method, net, seed=0)
    found = method.report(net)
    assert found["synthetic_images"] == 20
    assert 0 <= found["synthetic_as_class"] <= 1
    assert found["synthesis_saved_bytes"] > 1000
    assert len(found["thresholds"]) == 4


# Settings


def test_the_paper_budget_takes_the_published_numbers():
    method = PrivateSnn(small_task("paper"), track="recipe")
    assert method.sizes == {"images": 1000, "iterations": 2500, "image_lr": 1e-3, "calibration_images": 1024, "encrypt_lr": 1e-4}
    t = method.training
    assert (t.optimizer, t.lr, t.epochs, t.batch_size, t.milestones, method.steps) == ("sgd", 1e-2, 90, 256, (0.4, 0.6, 0.8), 100)
    assert round(method.options.encrypt_share * t.epochs) == 60
    assert method.options.network == "task"  # 8x8 pixels cannot be halved five times


def test_vgg16_is_the_network_of_the_code():
    method = PrivateSnn(Registries().tasks.load("static/cifar10")(), {"network": "vgg16"})
    with torch.device("meta"):
        net = method.build()
    shapes = [tuple(m.weight.shape) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(shapes) == 15
    assert shapes[-2:] == [(4096, 512, 1, 1), (10, 4096)]
    assert not any(name.endswith("bias") for name, _ in net.named_parameters())
    assert [m.p for m in net.modules() if isinstance(m, SequenceDropout)] == [0.5]


def test_a_residual_backbone_is_refused_before_anything_is_trained():
    task = small_task()
    task.budget = replace(task.budget, backbone=Backbone("resnet", (4, 6)))
    with pytest.raises(UnfitError, match="network=vgg16"):
        PrivateSnn(task)


def test_detection_is_refused_with_a_reason():
    assert "boxes" in PrivateSnn.supports(Registries().tasks.load("detection/digit-scenes")())
