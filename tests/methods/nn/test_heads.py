"""Heads for detection and segmentation, against the operations that they are made of."""

import pytest
import torch
import torch.nn.functional as F

from harness.task import Head
from methods.ann import Ann
from methods.nn import heads
from methods.nn.backbones import Level
from suites.nuclei import NucleiSegmentation

LEVELS = [Level(4, (8, 6), 2), Level(6, (4, 3), 4), Level(5, (2, 1), 8)]
STEPS, BATCH = 3, 2


@pytest.fixture
def parts():
    return Ann(NucleiSegmentation())


@pytest.fixture
def features():
    random = torch.Generator().manual_seed(0)
    return [torch.rand(STEPS, BATCH, level.channels, *level.size, generator=random) for level in LEVELS]


def built(kind, parts, strides=(2, 4), classes=3):
    torch.manual_seed(0)
    return heads.build(Head(kind, classes=classes, strides=strides), LEVELS, parts).eval()


def test_a_segmenter_answers_every_pixel_at_every_step(parts, features):
    assert built("segment", parts)(features).shape == (STEPS, BATCH, 3, 16, 12)
    assert built("segment", parts, (4,))(features).shape == (STEPS, BATCH, 3, 16, 12)


def test_a_segmenter_adds_the_enlarged_read_outs_of_its_levels(parts, features):
    head = built("segment", parts)
    total = torch.zeros(STEPS, BATCH, 3, 16, 12)
    for step in range(STEPS):
        for level, (tower, readout) in enumerate(zip(head.towers, head.readouts, strict=True)):
            now = readout(tower(features[level][step : step + 1]))[0]
            total[step] += F.interpolate(now, size=(16, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(features), total)


def test_a_segmenter_uses_the_levels_it_is_asked_for_only(parts, features):
    head = built("segment", parts, (4,))
    before = head(features)
    features[0], features[2] = features[0] + 1, features[2] + 1
    assert torch.equal(head(features), before)
    features[1] = features[1] + 1
    assert not torch.equal(head(features), before)


def test_every_weight_of_a_segmenter_learns(parts, features):
    head = built("segment", parts).train()
    head(features).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_a_pixel_of_a_segmenter_is_where_its_feature_is(parts):
    head = built("segment", parts, (2,))
    empty = [torch.zeros(1, 1, level.channels, *level.size) for level in LEVELS]
    lit = [level.clone() for level in empty]
    lit[0][..., 6, 1] = 1.0
    changed = (head(lit) - head(empty)).abs().sum((0, 1, 2))
    row, column = divmod(changed.argmax().item(), 12)
    assert abs(row - 12.5) <= 3 and abs(column - 2.5) <= 3  # a tower reaches one feature, two pixels, around it


def test_a_detector_answers_all_locations_of_all_levels_in_order(parts, features):
    head = built("detect", parts, (2, 8))
    found = head(features)
    assert found.shape == (STEPS, BATCH, 8 * 6 + 2 * 1, 5 + 3)
    fine = head.readouts[0](head.towers[0](features[0]))
    torch.testing.assert_close(found[:, :, 13], fine[..., 2, 1])
    coarse = head.readouts[1](head.towers[1](features[2]))
    torch.testing.assert_close(found[:, :, 48 + 1], coarse[..., 1, 0])


def test_a_detector_begins_with_rare_objects(parts, features):
    head = built("detect", parts)
    for readout in head.readouts:
        torch.testing.assert_close(readout.bias[:3].sigmoid(), torch.full((3,), 0.01))


@pytest.mark.parametrize("kind", ["detect", "segment"])
@pytest.mark.parametrize(("strides", "message"), [((2, 16), r"stride \[16\], the backbone has \[2, 4, 8\]"), ((), "stride none")])
def test_a_stride_that_the_backbone_lacks_is_refused(parts, kind, strides, message):
    with pytest.raises(ValueError, match=message):
        built(kind, parts, strides)
