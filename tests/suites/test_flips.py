import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.task import Batch
from suites import boxes
from suites.flips import mirrored

AXES = [("horizontal",), ("vertical",), ("horizontal", "vertical")]


def drawn(seed, count=6, height=20, width=28):
    """Black images with one bright rectangle each, and its box."""
    random = torch.Generator().manual_seed(seed)
    images, targets = torch.zeros(count, 2, height, width), torch.full((count, 3, 5), -1.0)
    for image, target in zip(images, targets, strict=True):
        x, y = (int(torch.randint(0, side - 6, (1,), generator=random)) for side in (width, height))
        w, h = (int(torch.randint(2, 6, (1,), generator=random)) for _ in range(2))
        image[:, y : y + h, x : x + w] = 1
        target[0] = torch.tensor([2, x, y, x + w, y + h])
    return Batch(images, targets, torch.arange(count))


def ink(image):
    ys, xs = image[0].nonzero().unbind(1)
    return [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(AXES))
def test_boxes_move_with_their_images(seed, axes):
    batch = mirrored(drawn(seed), torch.Generator().manual_seed(seed), axes)
    for image, target in zip(batch.inputs, batch.targets, strict=True):
        assert target[0, 1:].tolist() == ink(image)
        assert target[0, 0] == 2 and (target[1:] == -1).all()
    boxes.checked(batch.targets, 3, 20, 28)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(AXES))
def test_masks_move_with_their_images(seed, axes):
    batch = drawn(seed)
    masks = batch.inputs[:, 0].to(torch.uint8)
    found = mirrored(batch._replace(targets=masks), torch.Generator().manual_seed(seed), axes)
    assert torch.equal(found.targets, found.inputs[:, 0].to(torch.uint8))
    assert found.targets.dtype == torch.uint8


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_mirroring_twice_gives_the_batch_back(axis):
    batch = drawn(0)
    once = mirrored(batch, torch.Generator(), (axis,), chance=1.0)
    twice = mirrored(once, torch.Generator(), (axis,), chance=1.0)
    assert not torch.equal(once.inputs, batch.inputs)
    assert torch.equal(twice.inputs, batch.inputs) and torch.equal(twice.targets, batch.targets)


def test_each_sample_has_its_own_coin():
    batch = drawn(3, count=64)
    found = mirrored(batch, torch.Generator().manual_seed(0), ("horizontal",))
    same = (found.inputs == batch.inputs).flatten(1).all(1)
    assert 16 < int(same.sum()) < 48


def test_the_given_batch_is_left_as_it_was():
    batch = drawn(0)
    before = batch.targets.clone()
    mirrored(batch, torch.Generator(), ("horizontal", "vertical"), chance=1.0)
    assert torch.equal(batch.targets, before)


def test_objects_that_are_not_asked_for_move_too():
    batch = drawn(0, count=1)
    batch.targets[0, 0, 0] = -4
    found = mirrored(batch, torch.Generator(), ("horizontal",), chance=1.0)
    assert found.targets[0, 0, 1:].tolist() == ink(found.inputs[0])
