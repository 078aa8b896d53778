"""Scenes: real handwritten digits at random places and sizes on one canvas, with the box and class of each.

The box is the digit's ink: a digit is cut out of its 8x8 image, enlarged, and its cut-out's corners are the box, in whole pixels.
All that is random (which digits, how many, height, brightness, place) comes from one seed; digits are dealt like cards, so that all
are used about equally often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 50  # places that are tried before a digit is left out


@dataclass(frozen=True)
class Scenery:
    """What a scene may hold."""

    canvas: int = 32  # pixels, both ways
    digits: tuple[int, int] = (1, 3)  # fewest and most that are tried
    height: tuple[int, int] = (10, 18)  # pixels
    brightness: tuple[float, float] = (0.6, 1.0)  # of the brightest pixel
    overlap: float = 0.1  # largest IoU of two boxes

    def compose(self, images: Tensor, labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return ``count`` scenes ``[N, 1, S, S]`` in [0, 1] and their targets ``[N, M, 5]`` (``suites.boxes``).

        ``images [D, 8, 8]`` and ``labels [D]`` are the digits to use. Where two overlap, the brighter pixel is seen. A digit for which
        no place is found is left out; the first always fits.
        """
        random = np.random.default_rng(seed)
        scenes = np.zeros((count, self.canvas, self.canvas), np.float32)
        targets = np.full((count, self.digits[1], 5), -1.0, np.float32)
        deck: list[int] = []
        for scene, target in zip(scenes, targets, strict=True):
            placed = 0
            for _ in range(random.integers(self.digits[0], self.digits[1] + 1)):
                if not deck:
                    deck = random.permutation(len(images)).tolist()
                digit = deck.pop()
                glyph = enlarged(images[digit], int(random.integers(self.height[0], self.height[1] + 1)))
                glyph *= random.uniform(*self.brightness)
                corner = self._place(glyph.shape, target[:placed, 1:], random)
                if corner is None:
                    continue
                y, x = corner
                height, width = glyph.shape
                view = scene[y : y + height, x : x + width]
                np.maximum(view, glyph, out=view)
                target[placed] = (int(labels[digit]), x, y, x + width, y + height)
                placed += 1
        return torch.from_numpy(scenes).unsqueeze(1), torch.from_numpy(targets)

    def _place(self, shape: tuple[int, ...], others: np.ndarray, random: np.random.Generator) -> tuple[int, int] | None:
        height, width = shape
        for _ in range(TRIES):
            y, x = int(random.integers(self.canvas - height + 1)), int(random.integers(self.canvas - width + 1))
            box = np.array([x, y, x + width, y + height])
            if all(iou(box, other) <= self.overlap for other in others):
                return y, x
        return None


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return intersection over union of two boxes (x1, y1, x2, y2)."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inside = max(width, 0.0) * max(height, 0.0)
    return float(inside / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inside))


def enlarged(image: Tensor, height: int) -> np.ndarray:
    """Return the ink of ``image [H, W]`` as an array of ``height`` rows, its proportions kept, brightest pixel 1.

    The cut-out is more than half as wide as it is high, so that the box of every digit, a "1" too, holds a location of its level.
    """
    rows, columns = image.amax(1).nonzero().flatten(), image.amax(0).nonzero().flatten()
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    missing = max((bottom - top) // 2 + 1 - (right - left), 0)
    left = max(left - (missing + 1) // 2, 0)
    right = min(max(right, left + (bottom - top) // 2 + 1), image.shape[1])
    cut = image[top:bottom, left:right]
    width = round(height * (right - left) / (bottom - top))
    grown = F.interpolate(cut[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    glyph: np.ndarray = (grown / grown.amax()).numpy()
    return glyph
