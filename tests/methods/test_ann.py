"""The ReLU twin of STBP."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.registry import Registries
from methods.ann import Ann
from methods.stbp import Stbp


@pytest.fixture(scope="module")
def digits():
    return Registries().tasks.load("static/digits")()


def test_the_ann_and_its_spiking_twin_have_the_same_parameters(digits):
    shapes = [{name: p.shape for name, p in method(digits).build().named_parameters()} for method in (Ann, Stbp)]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 14


def test_twins_of_one_seed_start_from_the_same_weights(digits):
    found = []
    for method in (Ann, Stbp):
        torch.manual_seed(3)
        found.append(torch.cat([p.flatten() for p in method(digits).build().parameters()]))
    assert torch.equal(*found)


def test_the_ann_sees_a_static_image_once_whatever_is_asked(digits):
    assert Ann(digits, steps=16).steps == 1


def test_the_ann_computes_a_plain_relu_network(digits):
    method = Ann(digits)
    torch.manual_seed(0)
    net = method.build().double().eval()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    a = x
    for stage in net.backbone.stages:
        for layer in stage[:2]:
            n = layer.norm
            a = F.relu(F.batch_norm(F.conv2d(a, layer.synapse.weight, padding=1), n.running_mean, n.running_var, n.weight, n.bias))
        a = F.avg_pool2d(a, 2)
    expected = F.linear(a.flatten(1), net.head.readout.weight, net.head.readout.bias)
    with torch.no_grad():
        torch.testing.assert_close(method.predict(net, x).final(), expected, atol=1e-12, rtol=0)


def test_a_relu_network_emits_no_spikes(digits):
    assert {m.spike_kind for m in Ann(digits).build().modules() if hasattr(m, "spike_kind")} == {"none"}
