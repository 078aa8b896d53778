"""Events from still images: an event camera that looks at an image moved along saccades.

Contrast-threshold model (the idea of ESIM: Rebecq, Gehrig, Scaramuzza, CoRL 2018). For an image ``I`` in [0, 1], moved along ``s(t)``::

    L(u, t) = log(eps + I(u - s(t)))              log intensity at pixel u, bilinear between pixels
    event (u, t, p) when p (L(u, t) - R(u)) >= C_p(u), p in {+1, -1};   then R(u) <- R(u) + p C_p(u)

``R`` is the level at which the pixel last crossed a threshold; it starts at ``L(u, 0)``. Within a step of the path ``L`` is taken as linear
in time, which gives each crossing its own time stamp. ``C_p(u)`` differs from pixel to pixel (mismatch). A pixel is deaf for a refractory
time after an event: a crossing in that time moves ``R`` and is not sent.

The path is that of N-MNIST (Orchard et al., Frontiers in Neuroscience 9:437, 2015): three straight saccades of 105 ms that end where
they began; here with a half-cosine profile of position (ours), so that the image starts and stops gently. Threshold, ``eps`` and step count
make as many events of MNIST as the recordings of N-MNIST hold (ours, measured); the refractory time is ours.

Streams are structured arrays as tonic uses them, fields ``x``, ``y``, ``t`` (microseconds), ``p`` (1 brighter, 0 darker)::

    streams = Camera().record(images, path(pixels=4.0))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int32), ("p", np.int8)])
SACCADE = 105_000  # microseconds
DURATION = 3 * SACCADE


@dataclass(frozen=True)
class Path:
    """Where the image is: ``offsets [S + 1, 2]`` (dx, dy) in pixels at ``times [S + 1]`` in microseconds."""

    times: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        """Raise ValueError if times do not increase or do not belong to the offsets."""
        if self.offsets.shape != (len(self.times), 2):
            raise ValueError(f"offsets must have shape ({len(self.times)}, 2), not {self.offsets.shape}")
        if (np.diff(self.times) <= 0).any():
            raise ValueError("the times of a path must increase")


def path(pixels: float, steps: int = 20) -> Path:
    """Return N-MNIST's three saccades, centred, ``pixels`` wide and high (N-MNIST: 7), in ``steps`` steps each."""
    corners = np.array([(-0.5, -0.5), (0.0, 0.5), (0.5, -0.5), (-0.5, -0.5)]) * pixels
    profile = (1 - np.cos(np.pi * np.arange(1, steps + 1) / steps)) / 2
    legs = [a + profile[:, None] * (b - a) for a, b in zip(corners[:-1], corners[1:], strict=True)]
    return Path(np.linspace(0, DURATION, 3 * steps + 1), np.concatenate([corners[:1], *legs]))


def moved(images: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Return ``images [N, H, W]`` shifted right by ``dx`` and down by ``dy`` pixels, bilinear; what comes in is 0."""
    height, width = images.shape[1:]
    column, row = int(np.floor(dx)), int(np.floor(dy))
    a, b = dx - column, dy - row
    reach = max(abs(column), abs(row)) + 1
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach)))

    def shifted(down: int, right: int) -> np.ndarray:
        top, left = reach - row - down, reach - column - right
        return padded[:, top : top + height, left : left + width]

    return (1 - b) * ((1 - a) * shifted(0, 0) + a * shifted(0, 1)) + b * ((1 - a) * shifted(1, 0) + a * shifted(1, 1))


@dataclass(frozen=True)
class Camera:
    """An event camera; see the module's docstring. All images see the same pixels, drawn from ``seed``."""

    threshold: float = 0.5  # C, in log intensity
    mismatch: float = 0.03  # standard deviation of C_p(u), as a fraction of C
    eps: float = 0.1
    refractory: int = 1000  # microseconds
    seed: int = 0

    def thresholds(self, height: int, width: int) -> np.ndarray:
        """Return ``C_p(u) [2, H, W]``, darker first, so that it is indexed by ``p``."""
        spread = np.random.default_rng(self.seed).normal(1.0, self.mismatch, (2, height, width))
        return self.threshold * spread

    def record(self, images: np.ndarray, path: Path) -> list[np.ndarray]:
        """Return an event stream per image of ``images [N, H, W]`` in [0, 1], ordered by time.

        Raises ValueError for images outside [0, 1].
        """
        if images.ndim != 3 or not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(f"images must be [N, H, W] in [0, 1]; given {images.shape} in [{images.min()}, {images.max()}]")
        levels = (np.log(self.eps + moved(images, dx, dy)) for dx, dy in path.offsets)
        return self.watch(levels, path.times)

    def watch(self, levels: Iterator[np.ndarray], times: np.ndarray) -> list[np.ndarray]:
        """Return the event streams of log intensities ``levels``, one ``[N, H, W]`` for each of ``times`` (microseconds)."""
        before = np.array(next(levels), dtype=np.float64)
        count, height, width = before.shape
        steps = np.tile(self.thresholds(height, width).reshape(2, -1), (1, count))  # C_p of every pixel of every image
        reference = before.ravel().copy()
        before = before.ravel()
        last = np.full(before.shape, -(10**9), dtype=np.int64)  # time of a pixel's last event
        chunks = []
        for start, end, now in zip(times[:-1], times[1:], levels, strict=True):
            after = np.asarray(now, dtype=np.float64).ravel()
            polarity = (after > reference).astype(np.intp)
            step = np.where(polarity, steps[1], steps[0])
            crossings = np.floor(np.abs(after - reference) / step).astype(np.intp)
            where = np.flatnonzero(crossings)
            for k in range(1, crossings.max(initial=0) + 1):
                where = where[crossings[where] >= k]
                sign = 2 * polarity[where] - 1
                part = (reference[where] + k * sign * step[where] - before[where]) / (after[where] - before[where])
                moment = np.floor(start + (end - start) * part.clip(0, 1)).astype(np.int64)
                moment = np.minimum(moment, int(np.ceil(end)) - 1)  # steps are half-open, so that frames are
                sent = moment - last[where] >= self.refractory
                last[where[sent]] = moment[sent]
                chunks.append((where[sent], moment[sent], polarity[where[sent]]))
            reference += crossings * (2 * polarity - 1) * step
            before = after
        return self._streams(chunks, count, height, width)

    @staticmethod
    def _streams(chunks: list[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int, height: int, width: int) -> list[np.ndarray]:
        place, moment, polarity = (np.concatenate(parts) for parts in zip(*chunks, strict=True)) if chunks else np.zeros((3, 0), int)
        sample, pixel = np.divmod(place, height * width)
        order = np.lexsort((pixel, moment, sample))
        events = np.empty(len(order), EVENT)
        events["y"], events["x"] = np.divmod(pixel[order], width)
        events["t"], events["p"] = moment[order], polarity[order]
        return np.split(events, np.searchsorted(sample[order], np.arange(1, count)))
