import numpy as np
import pytest
import torch
from event_data import stream, streams
from hypothesis import given
from hypothesis import strategies as st
from tonic.transforms import RandomFlipLR

from suites.event_augment import dropped, jittered, mirrored, noisy, slid
from suites.event_frames import Framing


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


FRAMES = torch.poisson(torch.full((64, 4, 2, 6, 6), 3.0), generator=generator())


def test_dropping_is_binomial():
    left = dropped(FRAMES, 0.3, generator())
    assert (left >= 0).all() and (left <= FRAMES).all() and (left == left.round()).all()
    share = left.sum() / FRAMES.sum()
    assert share.item() == pytest.approx(0.7, abs=4 * (0.21 / FRAMES.sum().item()) ** 0.5)
    assert torch.equal(dropped(FRAMES, 0.0, generator()), FRAMES)


@given(st.integers(0, 50))
def test_noise_adds_as_many_events_as_it_says(events):
    more = noisy(FRAMES, events, generator())
    assert ((more - FRAMES).sum((1, 2, 3, 4)) == events).all() and (more >= FRAMES).all()


def test_a_mirrored_picture_is_that_of_mirrored_events():
    framing = Framing(34, 34, 5)
    recordings = [stream(300, seed=seed) for seed in range(16)]
    frames = torch.from_numpy(np.stack([framing(events) for events in recordings]))
    turned = mirrored(frames, generator())
    flip = RandomFlipLR((34, 34, 2), p=1.0)
    kinds = set()
    for before, after, events in zip(frames, turned, recordings, strict=True):
        changed = not torch.equal(before, after)
        kinds.add(changed)
        wanted = framing(flip(events.copy())) if changed else framing(events)
        np.testing.assert_array_equal(after.numpy(), wanted)
    assert kinds == {True, False}


def test_sliding_moves_all_steps_of_a_recording_alike():
    frames = torch.zeros(200, 3, 20)
    frames[:, :, 10] = torch.tensor([1.0, 2.0, 3.0])
    moved = slid(frames, 4, generator())
    places = {tuple(sample[0].nonzero().flatten().tolist()) for sample in moved}
    assert places == {(i,) for i in range(6, 15)}
    assert torch.equal(moved.sum(2), frames.sum(2))


def test_what_slides_out_is_lost():
    frames = torch.ones(50, 2, 3)
    assert set(slid(frames, 2, generator()).sum((1, 2)).tolist()) == {2.0, 4.0, 6.0}


@given(streams(), st.floats(0, 3000), st.integers(0, 99))
def test_jitter_changes_times_alone_and_keeps_their_order_and_range(events, deviation, seed):
    changed = jittered(events, deviation, np.random.default_rng(seed))
    assert (np.diff(changed["t"]) >= 0).all()
    assert changed["t"][0] >= events["t"][0] and changed["t"][-1] <= events["t"][-1]
    pixels = ["x", "y", "p"]
    assert sorted(changed[pixels].tolist()) == sorted(events[pixels].tolist())
    if deviation == 0:
        np.testing.assert_array_equal(changed, events)


def test_jitter_has_the_deviation_that_is_asked_for():
    events = stream(20_000, duration=10_000_000)
    events["x"] = 0
    identity = np.arange(20_000) % 2**15  # marks each event; two share a mark
    events["y"] = identity
    changed = jittered(events, 50.0, np.random.default_rng(0))
    order = np.argsort(changed["y"], kind="stable")
    before = events[np.argsort(events["y"], kind="stable")]
    assert np.std(changed["t"][order] - before["t"]) == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("change", [lambda f, g: dropped(f, 0.5, g), lambda f, g: noisy(f, 9, g), mirrored])
def test_the_same_seed_changes_alike(change):
    assert torch.equal(change(FRAMES, generator(3)), change(FRAMES, generator(3)))
    assert not torch.equal(change(FRAMES, generator(3)), change(FRAMES, generator(4)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("change", [lambda f, g: dropped(f, 0.5, g), lambda f, g: noisy(f, 9, g), mirrored])
def test_on_a_gpu_the_same_seed_changes_alike(change):
    frames = FRAMES.cuda()
    first = change(frames, generator(3))
    assert first.is_cuda and torch.equal(first, change(frames, generator(3)))
    assert not torch.equal(first, change(frames, generator(4)))
