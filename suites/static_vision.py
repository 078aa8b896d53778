"""The embedded digits as static images."""

from __future__ import annotations

from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites import digits
from suites.static_images import StaticTask


class Digits(StaticTask):
    """8x8 grey images of handwritten digits, ``[B, 1, 8, 8]`` in [0, 1], moved by at most one pixel in training."""

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
    budgets = {
        "smoke": Budget(Training(epochs=16, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (24, 48)), time_limit=180, target=0.95),
        "laptop": Budget(
            Training(epochs=40, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (32, 64)), time_limit=1200, target=0.97
        ),
    }
    mean, deviation = (0.3058,), (0.3755,)  # of the training split
    shift = 1

    def load(self, split: Split) -> Data:
        """Return images and classes."""
        pixels, labels = digits.images(split)
        return Data(pixels.unsqueeze(1), labels)

    def checksum(self) -> str:
        """Return the hash of the digits."""
        return digits.checksum()
