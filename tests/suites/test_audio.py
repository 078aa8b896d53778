import io
import math
import wave

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.plugin import DataError
from suites.audio import MelSpec, delta_spikes, log_mel, mel_filters, read_wav

SPEC = MelSpec(rate=8000)


def wav(samples, rate=8000, channels=1, width=2):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype(f"<i{width}").tobytes())
    return buffer.getvalue()


def test_samples_are_those_that_scipy_reads():
    from scipy.io import wavfile

    content = wav(np.random.default_rng(0).integers(-32768, 32768, 1000))
    rate, expected = wavfile.read(io.BytesIO(content))
    assert rate == 8000
    np.testing.assert_array_equal(read_wav(content, 8000, "x.wav") * 32768, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.wav cannot be read as wav"),
        (b"RIFF, but no more", r"x\.wav cannot be read as wav"),
        (wav(np.zeros(100))[:-50], r"x\.wav holds 75 of 100 samples"),
        (wav(np.zeros(0)), r"x\.wav holds 0 of 0 samples; it is empty"),
        (wav(np.zeros(100), rate=16000), r"1 channels of 16 bits at 16000 Hz; needed: 1 of 16 bits at 8000 Hz"),
        (wav(np.zeros(100), channels=2), r"2 channels of 16 bits"),
        (wav(np.zeros(100), width=4), r"1 channels of 32 bits"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(content, message):
    with pytest.raises(DataError, match=message):
        read_wav(content, 8000, "x.wav")


def triangle(frequency, band, bands, rate):
    """The weight of one frequency in one band, written down from the definition."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    left, centre, right = (700 * (10 ** (top * (band + k) / (bands + 1) / 2595) - 1) for k in (0, 1, 2))
    if left <= frequency <= centre:
        return (frequency - left) / (centre - left)
    return (right - frequency) / (right - centre) if centre < frequency <= right else 0.0


@pytest.mark.parametrize(("bins", "rate", "bands"), [(129, 8000, 40), (257, 16000, 40), (129, 8000, 13)])
def test_mel_bands_are_triangles_evenly_spread_on_the_mel_scale(bins, rate, bands):
    expected = [[triangle(bin * rate / 2 / (bins - 1), band, bands, rate) for band in range(bands)] for bin in range(bins)]
    torch.testing.assert_close(mel_filters(bins, rate, bands), torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_bands_too_narrow_for_the_window_are_refused():
    with pytest.raises(ValueError, match="holds no frequency of 33"):
        mel_filters(33, 8000, 80)


def test_frames_are_those_of_a_discrete_fourier_transform_written_out():
    sound = np.random.default_rng(3).normal(size=700) / 4
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    expected = []
    for start in range(0, 700, 128):
        part = np.zeros(256)
        part[: len(sound[start : start + 256])] = sound[start : start + 256]
        power = np.abs(np.fft.rfft(part * window / window.sum())) ** 2
        expected.append(np.log(power @ mel_filters(129, 8000, 40).double().numpy() + SPEC.floor))
    found = log_mel(torch.from_numpy(sound).float(), SPEC)
    assert found.shape == (6, 40)
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-4)


def test_a_sine_of_amplitude_1_has_the_power_a_quarter():
    sine = torch.sin(2 * math.pi * 40 / 256 * torch.arange(1024.0))
    frames = log_mel(sine, SPEC)[1:6]
    weight = mel_filters(129, 8000, 40)[39:42]  # a Hann window spreads a sine over three bins: a quarter of the power in each outer one
    expected = (0.25 * (weight[1] + 0.25 * (weight[0] + weight[2])) + SPEC.floor).log()
    torch.testing.assert_close(frames, expected.expand_as(frames), atol=1e-2, rtol=0)


@given(st.integers(1, 2000))
def test_there_is_a_frame_for_every_hop_begun(samples):
    assert log_mel(torch.zeros(samples), SPEC).shape == (math.ceil(samples / 128), 40)


def walked(values, threshold):
    """Send-on-delta of one channel, level by level."""
    reference, found = values[0], []
    for value in values:
        spike = 0
        while value >= reference + threshold:
            reference, spike = reference + threshold, 1
        while value <= reference - threshold:
            reference, spike = reference - threshold, -1
        found.append(spike)
    return found


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30), st.sampled_from([0.5, 1.0, 4.0]))
def test_a_channel_spikes_when_it_left_its_reference_by_a_threshold(values, threshold):
    spikes = delta_spikes(torch.tensor(values, dtype=torch.float32)[:, None] / 2, threshold)
    expected = walked([value / 2 for value in values], threshold)
    assert spikes.tolist() == [[float(one > 0), float(one < 0)] for one in expected]


def test_rising_channels_come_before_falling_ones():
    frames = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]])
    assert delta_spikes(frames, 1.0)[1].tolist() == [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan])
def test_a_threshold_that_is_not_positive_is_refused(threshold):
    with pytest.raises(ValueError, match="must be above 0"):
        delta_spikes(torch.zeros(2, 1), threshold)
