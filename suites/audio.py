"""Sound as sequences: wav files, log-mel frames, and the spikes of a send-on-delta coder.

wave = read_wav(path.read_bytes(), rate=8000, name=path.name)      # float32 [samples] in [-1, 1)
frames = log_mel(torch.from_numpy(wave), MelSpec(rate=8000))       # [F, 40]
spikes = delta_spikes(frames, threshold=0.5)                       # [F, 80], 0 or 1
"""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from harness.plugin import DataError


@dataclass(frozen=True)
class MelSpec:
    """How frames are made: a Hann window of ``window`` samples every ``hop`` samples, then ``bands`` mel bands up to half the rate."""

    rate: int  # samples per second
    window: int = 256
    hop: int = 128
    bands: int = 40
    floor: float = 1e-6  # added to powers before the logarithm


def read_wav(content: bytes, rate: int, name: str) -> np.ndarray:
    """Return the samples ``[L]`` of a mono 16-bit PCM file, in [-1, 1).

    Raises DataError that names the file if it is damaged, cut off or empty, or has another format or another rate than ``rate``.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            promised, frames = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{name} cannot be read as wav ({str(error) or 'it ends too early'}); it is damaged, get it again") from None
    if found != (1, 16, rate):
        raise DataError(f"{name} has {found[0]} channels of {found[1]} bits at {found[2]} Hz; needed: 1 of 16 bits at {rate} Hz")
    if not promised or len(frames) != 2 * promised:
        raise DataError(f"{name} holds {len(frames) // 2} of {promised} samples; it is empty or cut off, get it again")
    return np.frombuffer(frames, dtype="<i2").astype(np.float32) / 32768


@cache
def mel_filters(bins: int, rate: int, bands: int) -> Tensor:
    """Return the weights ``[bins, bands]`` of triangular bands over the frequencies 0 to ``rate / 2`` of a spectrum.

    With m(f) = 2595 log10(1 + f / 700) (D. O'Shaughnessy, "Speech Communication", 1987; as in HTK), ``bands + 2`` points are spread
    evenly on the mel scale from 0 to m(rate / 2). Band k rises linearly in Hz from point k to 1 at point k + 1 and falls to 0 at point
    k + 2. Raises ValueError if a band is so narrow that no frequency of the spectrum lies in it.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    points = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequencies = np.linspace(0, rate / 2, bins)[:, None]
    left, centre, right = points[:-2], points[1:-1], points[2:]
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    weights = np.clip(np.minimum(rising, falling), 0, None)
    if (empty := np.flatnonzero(weights.sum(0) == 0)).size:
        raise ValueError(f"mel band {empty[0]} of {bands} holds no frequency of {bins}; use fewer bands or a longer window")
    return torch.from_numpy(weights).float()


def log_mel(wave: Tensor, spec: MelSpec) -> Tensor:
    """Return the frames ``[F, bands]`` of ``wave [L]``: natural logarithms of the power in each mel band.

    The Hann window is normalised to a sum of 1, so that a sine of amplitude 1 has the power 1/4 at its frequency. F = ceil(L / hop), at
    least 1: frame i begins at sample ``i * hop``, and the end is padded with zeros.
    """
    frames = max(1, -(-len(wave) // spec.hop))
    needed = (frames - 1) * spec.hop + spec.window
    whole = torch.nn.functional.pad(wave, (0, needed - len(wave)))
    window = torch.hann_window(spec.window)
    spectrum = torch.stft(whole, spec.window, spec.hop, window=window / window.sum(), center=False, return_complex=True)
    power = spectrum.abs().square().T  # [F, bins]
    return (power @ mel_filters(power.shape[1], spec.rate, spec.bands) + spec.floor).log()


def delta_spikes(frames: Tensor, threshold: float) -> Tensor:
    """Return spikes ``[F, 2 C]`` of ``frames [F, C]``: first the channels that rose, then those that fell.

    Send-on-delta (M. Miskowicz, Sensors 6:49, 2006), the rule of an event camera: a channel spikes when it differs from its reference by
    at least ``threshold``; its reference then moves by the whole number of thresholds that were passed (one spike, however many). The
    reference begins at the first frame, which makes no spikes. Raises ValueError for a threshold that is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"threshold {threshold} must be above 0")
    reference = frames[0].clone()
    spikes = torch.zeros(len(frames), 2, frames.shape[1])
    for step, values in enumerate(frames):
        passed = torch.trunc((values - reference) / threshold)
        spikes[step, 0], spikes[step, 1] = passed > 0, passed < 0
        reference += passed * threshold
    return spikes.flatten(1)
