import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suites.windows import interleaved, windows


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_windows_are_slices_of_the_series(steps, length, every):
    series = torch.arange(steps * 3).view(steps, 3)
    if length > steps:
        with pytest.raises(ValueError, match="no window"):
            windows(series, length, every)
        return
    found = windows(series, length, every)
    starts = [start for start in range(0, steps, every) if start + length <= steps]
    assert found.shape == (len(starts), length, 3)
    for window, start in zip(found, starts, strict=True):
        assert torch.equal(window, series[start : start + length])


def test_windows_copy_nothing():
    series = torch.zeros(1000)
    assert windows(series, 100, 1).untyped_storage().data_ptr() == series.untyped_storage().data_ptr()


@given(st.integers(0, 300), st.integers(1, 40))
def test_interleaving_keeps_every_number_once(count, stride):
    assert sorted(interleaved(count, stride).tolist()) == list(range(count))


def test_any_beginning_of_the_interleaved_order_covers_the_whole():
    first = interleaved(1600)[:100].tolist()
    assert first == list(range(0, 1600, 16))
