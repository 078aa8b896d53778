"""Conversion of a whole segmenter: backbone, towers, read-outs of two levels and their enlargement."""

import copy

import pytest
import torch
from torch import Tensor

from harness.evaluate import evaluate
from harness.loop import train
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.ann2snn import Ann2Snn
from methods.nn.wiring import trace
from methods.tcl import Tcl
from suites.segmentation import SegmentationTask


class Squares(SegmentationTask):
    """Bright squares on a noisy ground, 16x16; the class of a pixel is whether it belongs to one."""

    card = TaskCard("toy/squares", "Squares", "random", "-", "by seed", "this file")
    input_shape = (1, 16, 16)
    head = Head("segment", classes=2, strides=(2, 4))
    steps = 4
    mean, deviation = (0.5,), (0.3,)
    budgets = {"smoke": Budget(Training(epochs=6, batch_size=16, lr=1e-2), Backbone("conv", (6, 8)))}

    def load(self, split: str) -> Data:
        random = torch.Generator().manual_seed(len(split))
        count = {"train": 96, "validation": 16, "test": 16}[split]
        masks = torch.zeros(count, 16, 16, dtype=torch.uint8)
        for mask in masks:
            y, x = torch.randint(0, 9, (2,), generator=random).tolist()
            mask[y : y + 7, x : x + 7] = 1
        noise = torch.randint(0, 120, masks.shape, generator=random)
        return Data((noise + 120 * masks).to(torch.uint8).unsqueeze(1), masks)


def converted(kind, steps, **options):
    """The method after training and conversion, the network, and a copy of its ReLU network."""
    torch.manual_seed(0)
    method = kind(Squares(), options, steps=steps)
    net = method.build()
    phases, relu = method.phases, None

    def keeping(net):
        nonlocal relu
        for phase in phases(net):
            yield phase
            relu = copy.deepcopy(net).eval()

    method.phases = keeping  # the generator resumes, and converts, only after the copy was made
    train(method, net, seed=0)
    return method, net, relu


def logits(method, net) -> Tensor:
    images = next(method.task.batches("test")).inputs
    with torch.no_grad():
        return method.predict(net, images).outputs


@pytest.fixture(scope="module")
def case():
    return converted(Ann2Snn, 256, factors="max")


def test_every_synapse_of_a_segmenter_has_one_source():
    method = Ann2Snn(Squares())
    net = method.build()
    found = trace(net, torch.zeros(1, 1, 1, 16, 16))
    assert len(found) == 2 * 2 + 2 * 2  # the layers of two stages; per level a tower and a read-out
    assert sum(c.layer is None for c in found) == 2
    towers = {c.source for c in found if c.layer is None}
    assert towers == set(net.head.towers)


def test_the_simulated_logits_approach_those_of_the_relu_network(case):
    method, net, relu = case
    images = next(method.task.batches("test")).inputs
    with torch.no_grad():
        wanted = method.predict_ann(relu, images).outputs[0]
    errors = [(answer - wanted).abs().mean().item() for answer in logits(method, net)[[15, 63, 255]]]
    scale = wanted.abs().mean().item()
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03 * scale, (errors, scale)


def test_the_converted_segmenter_answers_as_its_relu_network_does(case):
    method, net, relu = case
    ann = evaluate(method, relu, "test", method.predict_ann, every_step=False).metrics["miou"]
    found = evaluate(method, net, "test").metrics["miou"]
    assert ann > 0.8
    assert found == pytest.approx(ann, abs=0.01)


def test_trained_bounds_convert_a_segmenter_as_well():
    method, net, relu = converted(Tcl, 64)
    ann = evaluate(method, relu, "test", method.predict_ann, every_step=False).metrics["miou"]
    assert ann > 0.8
    assert evaluate(method, net, "test").metrics["miou"] > ann - 0.05
