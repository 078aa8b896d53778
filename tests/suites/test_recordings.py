import pickle

import numpy as np
import pytest
from event_data import stream
from hypothesis import given
from hypothesis import strategies as st

from harness.plugin import DataError
from suites.event_archive import Packed
from suites.recordings import EVENT, Recordings, checked, interleaved, natural


@pytest.fixture
def events():
    return stream(50, 10, 8)


def test_a_sound_stream_passes_unchanged(events):
    np.testing.assert_array_equal(checked(events, "a.bin", 10, 8), events)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("x", 10, r"a\.bin: event 20 of 50: x = 10 is outside the sensor \(0 to 9\)"),
        ("x", -1, r"a\.bin: event 20 .*x = -1"),
        ("y", 8, r"a\.bin: event 20 .*y = 8 is outside"),
        ("p", 2, r"a\.bin: event 20 .*polarity 2 is neither 0 nor 1"),
        ("t", -1, r"a\.bin: event 20 .*time -1 is before"),
    ],
)
def test_what_is_wrong_in_a_stream_is_named(events, field, value, message):
    events[field][20] = value
    with pytest.raises(DataError, match=message):
        checked(events, "a.bin", 10, 8)


def test_order_is_checked_for_unsigned_times_too(events):
    wide = events.astype([("x", "u8"), ("y", "u8"), ("t", "u8"), ("p", "u8")])
    checked(wide, "a.npy", 10, 8)
    wide["t"][7], wide["t"][6] = 3, 400_000
    with pytest.raises(DataError, match="before that of the event ahead"):
        checked(wide, "a.npy", 10, 8)


def test_events_at_one_time_are_in_order(events):
    events["t"][:] = 7
    assert len(checked(events, "a.bin", 10, 8)) == 50


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_broken_numbers_are_refused(events, value):
    seconds = events.astype([(field, float) for field in events.dtype.names])
    seconds["t"][0] = value
    with pytest.raises(DataError, match=r"a\.npz: t holds numbers that are not whole|before"):
        checked(seconds, "a.npz", 10, 8)


def test_an_empty_stream_is_refused(events):
    with pytest.raises(DataError, match=r"a\.bin holds no event"):
        checked(events[:0], "a.bin", 10, 8)


def test_missing_fields_are_named(events):
    with pytest.raises(DataError, match="has no y"):
        checked(events[["x", "t", "p"]], "a.npy", 10, 8)


def test_rows_are_not_asked_of_channels(events):
    assert not checked(events[["x", "t", "p"]], "a.h5", 10, None)["y"].any()


def test_what_a_reader_raises_names_the_recording():
    def broken(place):
        raise KeyError("spikes")

    with pytest.raises(DataError, match=r"b\.h5 cannot be read \(KeyError"):
        Recordings(["a.h5", "b.h5"], [0, 1], broken, 4)[1]


def make(count=6):
    parts = [stream(10, seed=seed) for seed in range(count)]
    return Recordings(
        [f"{i}.bin" for i in range(count)], [i % 3 for i in range(count)], Packed(np.concatenate(parts), np.arange(0, 61, 10)), 34, 34
    )


def test_selections_of_selections_keep_names_targets_and_events_together():
    everything = make()
    part = everything.select([5, 3, 1]).select([2, 0])
    assert (part.names, part.targets) == (["1.bin", "5.bin"], [1, 2])
    np.testing.assert_array_equal(part[0], everything[1])
    np.testing.assert_array_equal(part[1], everything[5])
    with pytest.raises(IndexError):
        part[2]


def test_recordings_reach_other_processes():
    copy = pickle.loads(pickle.dumps(make().select([4])))
    assert copy[0].dtype == EVENT and copy.names == ["4.bin"]


@given(st.lists(st.integers(0, 4), max_size=40))
def test_interleaving_is_an_order_that_deals_out_the_classes(targets):
    order = interleaved(targets)
    assert sorted(order) == list(range(len(targets)))
    dealt = [targets[i] for i in order]
    for end in range(len(dealt) + 1):
        counts = {kind: dealt[:end].count(kind) for kind in set(targets)}
        for kind in counts:
            assert counts[kind] >= min(targets.count(kind), max(counts.values()) - 1)


def test_names_with_numbers_are_ordered_as_people_do():
    names = ["b/1", "a/10.npy", "a/2.npy", "a/02.npy", "a/x.npy", "a/2b.npy"]
    assert sorted(names, key=natural) == sorted(reversed(names), key=natural)
    assert sorted(["a/10.npy", "a/2.npy", "a/1.npy"], key=natural) == ["a/1.npy", "a/2.npy", "a/10.npy"]
