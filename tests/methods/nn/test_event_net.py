"""The example network of the SCTFA paper."""

import pytest
import torch

from methods.nn.event_net import EventNet
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.sctfa import Sctfa
from suites.static_vision import Digits


def test_it_has_the_layers_of_the_example():
    parts = Sctfa(Digits())
    net = EventNet((2, 128, 128), parts, parts.plain_neuron())
    shapes = [tuple(layer.synapse.weight.shape) for layer in net.modules() if isinstance(layer, Layer)]
    assert shapes == [(32, 2, 7, 7), (64, 32, 3, 3), (128, 64, 3, 3), (512, 128 * 8 * 8)]
    strides = [layer.synapse.stride for layer in net.convolutions if isinstance(layer, Layer)]
    assert strides == [(2, 2), (1, 1), (1, 1)]
    assert isinstance(net.dense.neuron, LIF)
    assert net.levels[-1].features == 512


@pytest.mark.parametrize("size", [(15, 15), (20, 17), (34, 33)])
def test_its_levels_describe_its_features(size):
    parts = Sctfa(Digits())
    net = EventNet((2, *size), parts, parts.plain_neuron(), features=7)
    (found,) = net(torch.rand(2, 3, 2, *size))
    assert found.shape == (2, 3, 7)


def test_an_image_that_is_too_small_is_refused():
    parts = Sctfa(Digits())
    with pytest.raises(ValueError, match="allowed: 15 pixels"):
        EventNet((2, 14, 20), parts, parts.plain_neuron())
