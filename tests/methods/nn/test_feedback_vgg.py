"""A VGG with feedback against its equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.nn import normaliser_free
from methods.nn.feedback_vgg import FeedbackVgg
from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.synapse import AvgPool2d, Conv2d
from methods.nn.vgg import Vgg

PLAN = (3, "P", 4, "P", 5)


class Parts:
    conv = staticmethod(normaliser_free.conv)
    pool = staticmethod(AvgPool2d)

    def __init__(self, leak=0.5):
        self.leak = leak

    def neuron(self, features):
        return LIF(self.leak, 0.2, reset="soft")

    def norm(self, features, scale=1.0):
        return nn.Identity()


def feedback(features_in, features_out):
    return Conv2d(features_in, features_out, 3, padding=1, bias=False)


def net_and_input(steps=4, leak=0.5):
    torch.manual_seed(0)
    net = FeedbackVgg((2, 8, 8), PLAN, Parts(leak), feedback).double()
    return net, torch.randn(steps, 3, 2, 8, 8, dtype=torch.float64)


def test_first_layer_sees_the_last_map_of_the_step_before():
    net, x = net_and_input()
    seen = []
    net.first.neuron.register_forward_pre_hook(lambda module, given: seen.append(given[0][0].detach()))
    last = net(x)[2]
    assert last[:3].any()
    for t in range(4):
        wanted = F.conv2d(x[t], net.first.synapse.effective_weight, net.first.synapse.bias, padding=1)
        if t:
            large = last[t - 1].repeat_interleave(4, 2).repeat_interleave(4, 3)
            wanted = wanted + F.conv2d(large, net.feedback.weight, padding=1)
        assert torch.allclose(seen[t], wanted.detach(), atol=1e-12)


def test_without_feedback_it_is_the_plain_network():
    net, x = net_and_input()
    nn.init.zeros_(net.feedback.weight)
    torch.manual_seed(0)
    plain = Vgg((2, 8, 8), PLAN, Parts(), global_pool=True).double()
    found, wanted = net(x), plain(x)
    assert torch.allclose(found[-1], wanted[-1])
    assert torch.allclose(found[0], wanted[0])
    assert [tuple(level.shape[2:]) for level in found] == [(level.channels, *level.size) for level in net.levels]


def test_one_step_at_a_time_is_the_whole_sequence_and_nothing_stays():
    net, x = net_and_input()
    whole = net(x)
    with stepping(net):
        parts = [net(now) for now in (x[:1], x[1:3], x[3:])]
    assert all(torch.equal(level, torch.cat(steps)) for level, steps in zip(whole, zip(*parts, strict=True), strict=True))
    assert net.carried() is None
    assert all(torch.equal(a, b) for a, b in zip(net(x), whole, strict=True))


@pytest.mark.parametrize("detach", [True, False])
def test_errors_pass_through_the_feedback_unless_steps_are_cut(detach):
    net, x = net_and_input(2, leak=0.0)  # neurons without memory: the feedback is the only way through time
    first = x[:1].clone().requires_grad_()
    with stepping(net, detach=detach):
        net(first)
        net(x[1:])[-1].sum().backward()
    assert (first.grad is None) == detach
    assert net.feedback.weight.grad.any()


def test_a_plan_that_begins_with_a_pooling_is_refused():
    with pytest.raises(ValueError, match="begins with a layer of neurons"):
        FeedbackVgg((2, 8, 8), ("P", 3), Parts(), feedback)
