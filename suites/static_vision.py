"""Static images, presented directly: the same image at every time step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.task import Backbone, Batch, Budget, Data, Head, Split, TaskCard, Training
from suites import digits
from suites.classification import ClassificationTask


def shifted(images: Tensor, most: int, generator: torch.Generator, background: float = 0.0) -> Tensor:
    """Return ``images [B, C, H, W]``, each moved by its own whole number of pixels in ``[-most, most]`` both ways."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (most,) * 4, value=background)
    offset = torch.randint(0, 2 * most + 1, (2, len(images), 1), generator=generator).to(images.device)
    rows = (offset[0] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (offset[1] + torch.arange(width, device=images.device))[:, None, None, :]
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[sample, channel, rows, columns]


class Digits(ClassificationTask):
    """8x8 grey images of handwritten digits, ``[B, 1, 8, 8]``, normalised to mean 0 and variance 1."""

    card = TaskCard(
        name="static/digits",
        title="Handwritten digits",
        data="1,797 images of 8x8 pixels from scikit-learn's wheel (copy of the UCI test part)",
        licence=digits.LICENCE,
        split=digits.SPLIT_RULE,
        source="scikit-learn load_digits; E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998",
    )
    embedded = True
    input_shape = (1, 8, 8)
    head = Head("classify", classes=10)
    steps = 4
    budgets = {
        "smoke": Budget(Training(epochs=16, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (24, 48)), time_limit=180, target=0.95),
        "laptop": Budget(
            Training(epochs=40, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (32, 64)), time_limit=1200, target=0.97
        ),
    }
    mean, deviation = 0.3058, 0.3755  # of the training split

    def load(self, split: Split) -> Data:
        """Return images and classes."""
        pixels, labels = digits.images(split)
        return Data(((pixels - self.mean) / self.deviation).unsqueeze(1), labels)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the images moved by at most one pixel each way; what comes in is background."""
        return batch._replace(inputs=shifted(batch.inputs, 1, generator, background=-self.mean / self.deviation))

    def checksum(self) -> str:
        """Return the hash of the digits."""
        return digits.checksum()
