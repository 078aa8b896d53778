"""Spiking ResNet: what it shares with SEW ResNet, what is its own, and why it is the baseline."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.plugin import UsageError
from harness.registry import Registries
from methods.nn.residual import ResidualBlock
from methods.sew_resnet import SewResnet
from methods.spiking_resnet import IMAGENET, SpikingResnet
from suites.static_vision import Digits


def stack(neuron, blocks, channels=8, **options):
    method = SpikingResnet(Digits(), {"neuron": neuron})
    torch.manual_seed(1)
    return nn.Sequential(*[ResidualBlock(channels, channels, 1, method, "vanilla", **options) for _ in range(blocks)]).double()


def binary(*shape):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.4).double()


def test_it_is_the_vanilla_network_of_sew_resnet():
    nets = []
    for kind, options in ((SpikingResnet, {}), (SewResnet, {"connect": "vanilla"})):
        torch.manual_seed(0)
        nets.append(kind(Digits(), {"blocks": 2, **options}).build())
    x = torch.rand(4, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nets[0](x), nets[1](x))
    assert {m.connect for m in nets[0].modules() if isinstance(m, ResidualBlock)} == {"vanilla"}


def test_the_connection_is_no_option():
    with pytest.raises(UsageError, match="spiking_resnet has no option 'connect'"):
        SpikingResnet(Digits(), {"connect": "add"})
    assert set(SpikingResnet.Options.model_fields) == set(SewResnet.Options.model_fields) - {"connect"}


def test_a_claim_is_declared_for_every_depth_and_they_fall():
    claims = [c for c in SpikingResnet.card.claims if c.task == "static/imagenet"]
    values = [claim.value for claim in claims]
    assert len(values) == len(IMAGENET) == 5
    assert values == sorted(values, reverse=True)


def test_the_sum_passes_neurons_so_every_block_returns_spikes():
    x = binary(4, 2, 8, 6, 6)
    for block in stack("if", 3):
        x = block(x).detach()
        assert set(x.unique().tolist()) == {0.0, 1.0}


def test_zero_initialised_integrate_and_fire_blocks_are_identities_and_leaky_ones_are_not():
    x = binary(4, 2, 8, 6, 6)
    assert torch.equal(stack("if", 4, zero_init=True)(x), x)
    assert not torch.equal(stack("lif", 4, zero_init=True)(x), x)


def test_gradients_vanish_in_a_deep_stack_of_leaky_neurons_and_not_of_integrate_and_fire_neurons():
    def ratio(neuron, blocks):
        x = binary(4, 2, 8, 6, 6).requires_grad_()
        y = stack(neuron, blocks)(x)
        g = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        return (torch.autograd.grad(y, x, g)[0].norm() / g.norm()).item()

    assert ratio("lif", 24) < 1e-2
    assert ratio("lif", 24) < ratio("lif", 6) / 3
    assert ratio("if", 24) > 0.3


@pytest.mark.parametrize(
    ("task", "net"),
    [
        ("static/tiny-imagenet", "18"),
        ("static/digits", "budget"),
        ("events/digits-saccade", "budget"),
        ("detection/digit-scenes", "budget"),
    ],
)
def test_the_recipe_starts_from_identities_on_a_network_that_fits(task, net):
    method = SpikingResnet(Registries().task(task), track="recipe")
    assert (method.options.zero_init, method.options.net, method.training.optimizer) == (True, net, "sgd")
    with torch.device("meta"):
        assert method.backbone().levels


def test_the_report_tells_gradient_norms_by_block():
    method = SpikingResnet(Digits(), {"blocks": 2})
    torch.manual_seed(0)
    report = method.report(method.build())
    assert len(report["block_gradient_norm"]) == len(report["block_rate"]) == 4
    assert max(report["block_max"]) == 1
