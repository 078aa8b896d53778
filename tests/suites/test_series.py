import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from suites.series import Scale, padded, rank_in_class, resampled

SERIES = st.tuples(st.integers(1, 3), st.integers(1, 40)).flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(-100, 100)))


@given(SERIES, st.integers(1, 60))
def test_resampling_keeps_the_mean(series, length):
    found = resampled(series, length)
    assert found.shape == (len(series), length)
    np.testing.assert_allclose(found.mean(1), series.mean(1), atol=1e-9)


@given(SERIES, st.integers(1, 4))
def test_resampling_to_a_multiple_repeats_values(series, times):
    np.testing.assert_allclose(resampled(series, times * series.shape[1]), series.repeat(times, axis=1), atol=1e-9)


@pytest.mark.parametrize(("steps", "length"), [(12, 4), (12, 5), (7, 3), (1460, 365)])
def test_shortening_is_torchs_pooling_of_a_finer_grid(steps, length):
    series = np.random.default_rng(0).normal(size=(2, steps))
    fine = torch.from_numpy(series).repeat_interleave(length, dim=1)  # length * steps values: parts end where values do
    expected = torch.nn.functional.avg_pool1d(fine, steps)
    np.testing.assert_allclose(resampled(series, length), expected.numpy(), atol=1e-9)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(9, 12))
def test_padding_is_in_front_and_the_last_step_is_the_last_value(lengths, length):
    series = [np.arange(1, 2 * steps + 1, dtype=float).reshape(2, steps) for steps in lengths]
    found = padded(series, length)
    assert found.shape == (len(series), length, 2)
    for row, each in zip(found, series, strict=True):
        assert (row[: length - each.shape[1]] == 0).all()
        np.testing.assert_array_equal(row[length - each.shape[1] :], each.T)


def test_what_is_too_long_is_refused():
    with pytest.raises(ValueError, match="5 steps does not fit into 4"):
        padded([np.zeros((1, 5))], 4)


def test_normalised_channels_have_mean_0_and_deviation_1_over_all_values():
    generator = np.random.default_rng(1)
    series = [generator.normal(5, [[1], [9]], size=(2, steps)) for steps in (3, 30, 7)]
    values = np.concatenate(Scale.of(series)(series), axis=1)
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(values.std(1), 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_a_channel_that_never_changes_becomes_zero(value):
    (found,) = Scale.of([np.full((1, 7), value)])([np.full((1, 7), value)])
    np.testing.assert_allclose(found, 0, atol=1e-6)


@given(st.lists(st.integers(0, 4), max_size=60))
def test_a_rank_counts_earlier_samples_of_the_class(labels):
    expected = [labels[:place].count(label) for place, label in enumerate(labels)]
    assert rank_in_class(np.array(labels, dtype=np.int64)).tolist() == expected
