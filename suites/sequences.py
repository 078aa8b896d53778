"""Sequences: classification after many short steps, where what counts came long ago."""

from __future__ import annotations

from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites import digits
from suites.classification import ClassificationTask


class DigitsPixels(ClassificationTask):
    """The digits, one pixel per step, row by row: ``[B, 64, 1]``, normalised to mean 0 and variance 1."""

    card = TaskCard(
        name="sequences/digits-pixels",
        title="Handwritten digits, pixel by pixel",
        data="1,797 images of 8x8 pixels from scikit-learn's wheel, read row by row",
        licence=digits.LICENCE,
        split=digits.SPLIT_RULE,
        source="scikit-learn load_digits; the task is that of sequential MNIST (Le, Jaitly, Hinton, 2015)",
    )
    embedded = True
    input_shape = (1,)
    head = Head("classify", classes=10)
    steps = 64
    temporal = True
    readout = "last"
    budgets = {
        "smoke": Budget(Training(epochs=8, batch_size=32, lr=4e-3), Backbone("sequence", (64, 64, 64)), time_limit=300, target=0.9),
        "laptop": Budget(Training(epochs=40, batch_size=32, lr=4e-3), Backbone("sequence", (128, 128, 128)), time_limit=1800, target=0.95),
    }
    mean, deviation = 0.3058, 0.3755  # of the training split

    def load(self, split: Split) -> Data:
        """Return the pixels and classes."""
        pixels, labels = digits.images(split)
        return Data(((pixels - self.mean) / self.deviation).flatten(1).unsqueeze(2), labels)

    def checksum(self) -> str:
        """Return the hash of the digits."""
        return digits.checksum()
