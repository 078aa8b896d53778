import numpy as np
import pytest
from event_data import stream, streams
from hypothesis import given
from hypothesis import strategies as st
from tonic.transforms import Downsample, ToFrame

from suites.event_frames import Framing
from suites.recordings import EVENT


def test_an_event_on_the_edge_of_a_window_belongs_to_the_later_one():
    events = np.array([(0, 0, 9, 1), (1, 0, 10, 0), (2, 1, 19, 1)], dtype=EVENT)
    frames = Framing(3, 2, steps=2, duration=20)(events)
    assert frames.shape == (2, 2, 2, 3)
    assert np.argwhere(frames).tolist() == [[0, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 2]]


def test_an_empty_stream_gives_empty_frames():
    frames = Framing(5, 4, steps=3, duration=30)(np.empty(0, EVENT))
    assert frames.shape == (3, 2, 4, 5) and not frames.any()


def test_windows_of_broken_microseconds_are_refused():
    with pytest.raises(ValueError, match="whole microseconds"):
        Framing(4, 4, steps=3, duration=10)


def test_counts_have_no_duration():
    with pytest.raises(ValueError, match="no duration"):
        Framing(4, 4, steps=2, by="count", duration=10)


def test_an_event_after_the_duration_is_refused():
    with pytest.raises(ValueError, match="out of range"):
        Framing(4, 4, steps=2, duration=10)(np.array([(0, 0, 3, 1), (0, 0, 10, 1)], EVENT))


def test_a_count_that_overflows_is_refused():
    events = np.zeros(40_000, EVENT)
    with pytest.raises(ValueError, match="32,767"):
        Framing(1, 1, steps=1)(events)


@given(streams(), st.integers(1, 12), st.sampled_from(["time", "count"]), st.integers(1, 4))
def test_every_event_is_in_the_frames_once(events, steps, by, pool):
    frames = Framing(9, 7, steps, by, pool)(events)
    assert frames.sum() == len(events)
    for p in (0, 1):
        for y in range(frames.shape[2]):
            for x in range(frames.shape[3]):
                here = (events["p"] == p) & (events["y"] // pool == y) & (events["x"] // pool == x)
                assert frames[:, p, y, x].sum() == here.sum()


@given(streams(), st.integers(1, 8))
def test_windows_of_counts_hold_equally_many_and_the_last_the_rest(events, steps):
    per_frame = Framing(9, 7, steps, "count")(events).sum((1, 2, 3)).tolist()
    each, rest = divmod(len(events), steps)
    assert per_frame == [each] * (steps - 1) + [each + rest]


@given(streams(), st.integers(1, 8))
def test_windows_of_time_are_equal_and_as_short_as_can_be(events, steps):
    first, last = int(events["t"][0]), int(events["t"][-1])
    window = next(w for w in range(1, 10_000) if w * steps > last - first)
    wanted = np.bincount((events["t"] - first) // window, minlength=steps)
    assert Framing(9, 7, steps)(events).sum((1, 2, 3)).tolist() == wanted.tolist()


def test_frames_equal_those_of_tonic_where_tonic_leaves_nothing_out():
    events = stream(4000)
    events["t"][0], events["t"][-1] = 0, 299_999
    time = ToFrame((34, 34, 2), time_window=30_000, start_time=0, end_time=300_000)(events)
    np.testing.assert_array_equal(Framing(34, 34, 10)(events), time)
    np.testing.assert_array_equal(Framing(34, 34, 10, "count")(events), ToFrame((34, 34, 2), n_event_bins=10)(events))


def test_pooling_equals_tonics_downsampling():
    events = stream(3000, 64, 48)
    half = Downsample(sensor_size=(64, 48, 2), target_size=(32, 24))(events)
    wanted = ToFrame((32, 24, 2), n_event_bins=6)(half)
    np.testing.assert_array_equal(Framing(64, 48, 6, "count", pool=2)(events), wanted)


def test_an_incomplete_block_of_pixels_is_a_pixel():
    events = np.array([(34, 33, 0, 1)], EVENT)
    frames = Framing(35, 34, 1, pool=4)(events)
    assert frames.shape == (1, 2, 9, 9)
    assert np.argwhere(frames).tolist() == [[0, 1, 8, 8]]


def test_channels_without_rows_give_frames_of_channels():
    events = np.array([(3, 0, 1), (699, 5, 1), (695, 9, 1)], dtype=[("x", int), ("t", int), ("p", int)])
    frames = Framing(700, None, steps=2, pool=5, duration=10, polarities=1)(events)
    assert frames.shape == (2, 140)
    assert np.argwhere(frames).tolist() == [[0, 0], [1, 139]] and frames[1, 139] == 2


def test_the_stream_itself_is_not_changed():
    events = stream(100)
    before = events.copy()
    Framing(34, 34, 5, pool=2, polarities=1)(events)
    np.testing.assert_array_equal(events, before)
