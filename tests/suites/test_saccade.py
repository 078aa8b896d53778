import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.saccade import DURATION, SACCADE, Camera, Path, moved, path

EXACT = Camera(threshold=0.5, mismatch=0.0, refractory=0)


def watch(camera, levels, times):
    """Log intensities of one pixel -> its event stream."""
    return camera.watch(iter(np.array(levels, float).reshape(-1, 1, 1, 1)), np.array(times))[0]


def plain(camera, levels, times):
    """The model, one pixel at a time, crossing by crossing."""
    thresholds = camera.thresholds(*levels.shape[1:])
    events = []
    for y, x in np.ndindex(levels.shape[1:]):
        reference, last = levels[0, y, x], -np.inf
        for k in range(len(times) - 1):
            a, b = levels[k, y, x], levels[k + 1, y, x]
            p = int(b > reference)
            step = (2 * p - 1) * thresholds[p, y, x]
            while (b - (reference + step)) * (2 * p - 1) >= 0:
                reference += step
                t = int(times[k] + (times[k + 1] - times[k]) * (reference - a) / (b - a))
                if t - last >= camera.refractory:
                    events.append((t, y, x, p))
                    last = t
    return sorted(events)


@settings(max_examples=50, deadline=None)
@given(change=st.integers(-40, 40))
def test_a_step_of_brightness_emits_its_size_over_the_threshold(change):
    height = change / 8  # exact in binary, as the threshold is
    events = watch(EXACT, [0.0, height], [0, 1000])
    assert len(events) == int(abs(height) // 0.5)
    assert set(events["p"]) <= {int(height > 0)}


def test_crossings_within_a_step_have_their_own_times():
    events = watch(EXACT, [0.0, 2.0, 2.0], [0, 1000, 2000])
    assert events["t"].tolist() == [250, 500, 750, 999]  # the last falls on the end, which belongs to the next window


def test_the_way_back_emits_as_many_events_of_the_other_polarity():
    events = watch(EXACT, [0.0, 1.75, 0.0], [0, 1000, 2000])
    assert events["p"].tolist() == [1, 1, 1, 0, 0, 0]


def test_a_crossing_in_the_refractory_time_moves_the_reference_and_is_not_sent():
    camera = Camera(threshold=0.5, mismatch=0.0, refractory=400)
    events = watch(camera, [0.0, 2.0, 2.4], [0, 1000, 2000])  # crossings at 250, 500, 750, 1000
    assert events["t"].tolist() == [250, 750]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), refractory=st.sampled_from([0, 300, 5000]))
def test_streams_equal_those_of_a_plain_loop(seed, refractory):
    random = np.random.default_rng(seed)
    levels = random.normal(0, 1, (6, 2, 3, 4)).cumsum(0)
    times = np.arange(6) * 1000.5
    camera = Camera(threshold=0.4, mismatch=0.1, refractory=refractory, seed=seed)
    for n, events in enumerate(camera.watch(iter(levels), times)):
        found = sorted(zip(*(events[f].tolist() for f in "tyxp"), strict=True))
        assert found == plain(camera, levels[:, n], times)


@pytest.fixture(scope="module")
def streams():
    images = np.random.default_rng(0).random((6, 12, 10))
    return Camera(refractory=2000).record(images, path(4.0))


def test_events_come_in_order_inside_sensor_and_recording(streams):
    for events in streams:
        assert len(events) > 100
        assert (np.diff(events["t"]) >= 0).all()
        assert events["x"].min() >= 0 and events["x"].max() < 10
        assert events["y"].min() >= 0 and events["y"].max() < 12
        assert events["t"].min() >= 0 and events["t"].max() < DURATION
        assert set(events["p"].tolist()) == {0, 1}


def test_events_of_a_pixel_are_a_refractory_time_apart(streams):
    for events in streams:
        for y, x in np.ndindex(12, 10):
            moments = events["t"][(events["x"] == x) & (events["y"] == y)]
            assert (np.diff(moments) >= 2000).all()


def test_polarities_balance_over_a_closed_path():
    images = np.random.default_rng(1).random((3, 12, 12))
    for events in EXACT.record(images, path(4.0)):
        for y, x in np.ndindex(12, 12):
            p = events["p"][(events["x"] == x) & (events["y"] == y)].astype(int)
            assert abs((2 * p - 1).sum()) <= 1  # back at the brightness it came from, within one threshold


def test_a_blank_image_emits_nothing():
    assert [len(s) for s in Camera().record(np.zeros((2, 5, 5)), path(2.0))] == [0, 0]


def test_recording_is_deterministic():
    images = np.random.default_rng(2).random((2, 8, 8))
    first, second = (Camera(seed=4).record(images, path(3.0)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_whole_pixel_moves_shift_the_image():
    image = np.arange(1.0, 26.0).reshape(1, 5, 5)
    wanted = np.zeros((1, 5, 5))
    wanted[:, 1:, :-2] = image[:, :-1, 2:]
    np.testing.assert_array_equal(moved(image, -2, 1), wanted)


@settings(max_examples=25, deadline=None)
@given(dx=st.floats(-3, 3), dy=st.floats(-3, 3))
def test_moves_between_pixels_are_bilinear(dx, dy):
    from scipy.ndimage import shift

    image = np.pad(np.random.default_rng(0).random((5, 6)), 5)
    np.testing.assert_allclose(moved(image[None], dx, dy)[0], shift(image, (dy, dx), order=1), atol=1e-12)


def test_the_path_is_three_saccades_that_end_where_they_began():
    found = path(7.0, steps=20)
    at = {t: found.offsets[np.flatnonzero(found.times == t)[0]] for t in (0, SACCADE, 2 * SACCADE, 3 * SACCADE)}
    jumps = [at[SACCADE] - at[0], at[2 * SACCADE] - at[SACCADE], at[3 * SACCADE] - at[2 * SACCADE]]
    np.testing.assert_allclose(jumps, [(3.5, 7), (3.5, -7), (-7, 0)], atol=1e-12)


def test_a_path_whose_times_do_not_increase_is_refused():
    with pytest.raises(ValueError, match="must increase"):
        Path(np.array([0, 0]), np.zeros((2, 2)))


def test_images_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        Camera().record(np.full((1, 4, 4), 16.0), path(2.0))
