"""ResNet-9 and ResNet-11 in stages."""

import pytest
import torch
from torch import nn

from methods.bloctrain import BlocTrain
from methods.nn.block_resnet import WIDTHS, residual_stages
from methods.nn.conditional import cut
from suites.static_vision import Digits

PARTS = BlocTrain(Digits())


@pytest.mark.parametrize(("name", "layers", "stages"), [("resnet9", 9, 3), ("resnet11", 11, 4)])
def test_layers_are_counted_with_the_classifier_and_without_shortcuts(name, layers, stages):
    found = residual_stages((3, 32, 32), WIDTHS[name], PARTS)
    kernels = [module.kernel_size for module in found.modules() if isinstance(module, nn.Conv2d)]
    assert kernels.count((3, 3)) + 1 == layers
    assert len(found) == stages


@pytest.mark.parametrize("widths", [(4, 6, 8), (4, 6, 8, 8)])
def test_each_stage_halves_the_image_and_is_a_block_of_its_own(widths):
    stages = residual_stages((3, 32, 32), widths, PARTS, stem=4)
    blocks = cut(stages, len(widths))
    x = torch.rand(2, 3, 3, 32, 32)
    for number, (stage, block, width) in enumerate(zip(stages, blocks, widths, strict=True)):
        assert [p is q for p, q in zip(stage.parameters(), block.parameters(), strict=True)]
        x = block(x)
        assert x.shape == (2, 3, width, 32 >> (number + 2), 32 >> (number + 2))


def test_all_synapses_but_the_first_and_those_after_poolings_see_spikes():
    stages = residual_stages((3, 16, 16), (4, 6), PARTS, stem=3)
    seen = []
    for module in stages.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, out: seen.append(set((4 * args[0]).unique().tolist())))
    x = 3 * torch.rand(2, 5, 3, 16, 16)
    for stage in stages:
        x = stage(x)
    assert len(seen) == 8
    assert all(values <= {0.0, 1.0, 2.0, 3.0, 4.0} for values in seen[1:])


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match="8x8 cannot be halved 4 times"):
        residual_stages((1, 8, 8), WIDTHS["resnet9"], PARTS)
    with pytest.raises(ValueError, match="for images"):
        residual_stages((8,), WIDTHS["resnet9"], PARTS)
