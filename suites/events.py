"""Simulated events: handwritten digits before the event camera of ``suites.saccade``, framed.

A sample is ``[T, 2, H, W]``: events per window, polarity (0 darker, 1 brighter), and pixel. Counts are not rescaled: they are small
whole numbers (nine in ten are 0, the largest is 5), so that they stay events for whoever counts operations, and
every method normalises the currents they cause. Windows are the same for all streams, start at time 0 and cover the whole recording,
so framing loses no event.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.task import Backbone, Batch, Budget, Data, Head, Split, TaskCard, Training
from suites import digits, saccade
from suites.augmentation import shifted
from suites.classification import ClassificationTask
from suites.event_frames import Framing


class DigitsSaccade(ClassificationTask):
    """The digits, moved along three saccades before a simulated event camera of 20x20 pixels: ``[B, 9, 2, 20, 20]``.

    Image and path are N-MNIST's, scaled: a digit of 16 pixels (28 there) that moves over 4 pixels (7). Three frames of 35 ms per saccade.
    """

    card = TaskCard(
        name="events/digits-saccade",
        title="Handwritten digits, simulated saccades",
        data="1,797 simulated event streams of 315 ms: a contrast-threshold model of a camera before scikit-learn's 8x8 images",
        licence=digits.LICENCE,
        split=digits.SPLIT_RULE,
        source="scikit-learn load_digits; model after ESIM (Rebecq et al., CoRL 2018), path after N-MNIST (Orchard et al., 2015)",
    )
    size, digit, travel = 20, 16, 4.0  # pixels
    embedded = True
    input_shape = (2, 20, 20)
    head = Head("classify", classes=10)
    steps = 9
    temporal = True
    budgets = {
        "smoke": Budget(Training(epochs=5, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (8, 16)), time_limit=300, target=0.9),
        "laptop": Budget(
            Training(epochs=20, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (32, 64)), time_limit=1800, target=0.95
        ),
    }
    camera = saccade.Camera()

    def unavailable(self) -> str | None:
        """Return what to install if tonic is missing."""
        return None if find_spec("tonic") else "tonic is not installed: pip install 'spikebench[events]'"

    def streams(self, split: Split) -> tuple[list[np.ndarray], Tensor]:
        """Return an event stream per digit (``suites.saccade``) and the classes ``[N]``."""
        images, labels = digits.images(split)
        enlarged = F.interpolate(images.unsqueeze(1), size=(self.digit, self.digit), mode="bilinear", align_corners=False).squeeze(1)
        border = (self.size - self.digit) // 2
        canvas = F.pad(enlarged, (border,) * 4).clamp(0, 1).double()
        return self.camera.record(canvas.numpy(), saccade.path(self.travel)), labels

    def load(self, split: Split) -> Data:
        """Return frames and classes."""
        streams, labels = self.streams(split)
        framing = Framing(self.size, self.size, self.steps, duration=saccade.DURATION)
        return Data(torch.from_numpy(np.stack([framing(events) for events in streams])).float(), labels)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the frames ``[B, T, 2, H, W]``, each sample moved by at most one pixel each way."""
        return batch._replace(inputs=shifted(batch.inputs.flatten(1, 2), 1, generator).view_as(batch.inputs))

    def checksum(self) -> str:
        """Return the hash of the digits and of what turns them into events."""
        rules = f"{digits.checksum()} {self.camera} {self.size} {self.digit} {self.travel} {self.steps}"
        return hashlib.sha256(rules.encode()).hexdigest()[:16]
