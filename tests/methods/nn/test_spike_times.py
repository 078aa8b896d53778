import pytest
import torch

from methods.nn.spike_times import SILENT, counts, events, fired, first, frame_times, latency, merged, ordered, trimmed


def test_bright_pixels_fire_early_and_black_ones_not_at_all():
    found = latency(torch.tensor([[0.0, 0.5, 1.0]]), window=0.1)
    assert found.tolist() == [[[SILENT], [pytest.approx(0.05)], [0.0]]]


def test_each_frame_with_events_is_one_spike_at_its_middle():
    frames = torch.tensor([[0.0, 3.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).unsqueeze(1)  # [T=4, B=1, 2]
    found = frame_times(frames, window=0.4)
    torch.testing.assert_close(found, torch.tensor([[[0.15, 0.25], [0.05, SILENT]]]))


def test_frames_without_events_leave_one_empty_slot():
    assert frame_times(torch.zeros(3, 2, 1, 2, 2), 0.1).tolist() == torch.full((2, 1, 2, 2, 1), SILENT).tolist()


def test_ordered_sorts_and_drops_unused_slots():
    times = torch.tensor([[[SILENT, 0.2, 0.1], [0.3, SILENT, SILENT]]])
    assert ordered(times).shape == (1, 2, 2)
    assert torch.equal(ordered(times), trimmed(times.sort(-1).values))


def test_merged_trains_hold_all_spikes_in_order():
    times = torch.tensor([[[0.1, 0.4], [0.2, SILENT]]])
    torch.testing.assert_close(merged(times, 1), torch.tensor([[0.1, 0.2, 0.4, SILENT]]))


def test_counts_grow_with_time():
    times = torch.tensor([[[0.1, 0.4], [0.2, SILENT]]])
    assert counts(times).tolist() == [[2.0, 1.0]]
    assert counts(times, torch.tensor([0.05, 0.2, 0.5])).tolist() == [[[0.0, 0.0]], [[1.0, 1.0]], [[2.0, 1.0]]]
    assert first(times).tolist() == [[pytest.approx(0.1), pytest.approx(0.2)]]
    assert fired(times).tolist() == [[[1.0, 1.0], [1.0, 0.0]]]


def test_events_are_in_order_and_say_where_they_come_from():
    torch.manual_seed(0)
    times = torch.rand(4, 5, 3).sort(-1).values
    times = torch.where(times < 0.7, times, SILENT)
    found = events(times)
    for sample in range(4):
        expected = sorted(t for t in times[sample].flatten().tolist() if t < SILENT)
        assert [t for t in found.times[sample].tolist() if t < SILENT] == expected
        for t, slot, neuron in zip(*(part[sample, : len(expected)].tolist() for part in found), strict=True):
            assert times[sample].flatten()[slot] == t
            assert t in times[sample, neuron].tolist()


def test_events_of_a_stretch_of_time_include_its_start_and_not_its_end():
    times = torch.tensor([[[0.1, 0.2]], [[0.2, 0.3]]])
    assert events(times, 0.2, 0.3).times.tolist() == [[pytest.approx(0.2)], [pytest.approx(0.2)]]
    assert events(times, 0.5).times.shape == (2, 0)
