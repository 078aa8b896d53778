"""CIFAR-10 as a sequence: column by column, or pixel by pixel; the original images, or their JPEG copies.

    spikebench run -t sequences/scifar10-jpeg -m stbp,psn
    spikebench data sequences/scifar10                  # the original, 170 MB

Columns, 32 steps of 96 values, are the sequential CIFAR-10 of the parallel spiking neurons (W. Fang et al., NeurIPS 2023); pixels, 1,024
steps of 3 values, that of recurrent networks and of state-space models. JPEG copies are not the original pixels, and their tasks say so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.task import Backbone, Batch, Budget, Data, Head, Split, TaskCard, Training
from suites import cifar10_jpeg
from suites.cifar import Cifar10
from suites.classification import ClassificationTask
from suites.sources import FileTask
from suites.splits import held_out

SPLIT_RULE = "the standard one, 50,000 and 10,000 images; of the former the last 500 of each class for validation"
COLUMNS = "W. Fang et al., Parallel spiking neurons with high efficiency and ability to learn long-term dependencies, NeurIPS 2023"
PIXELS = "Y. Tay et al., Long range arena: a benchmark for efficient transformers, 2020 (there with grey pixels)"
LICENCE = "none stated (part of the withdrawn 80 Million Tiny Images)"


class CifarColumns(FileTask, ClassificationTask):
    """Images of 32x32 pixels, one column per step, ``[B, 32, 96]``: first the red values from top to bottom, then green, then blue."""

    head = Head("classify", classes=10)
    temporal = True
    readout = "last"
    input_shape: tuple[int, ...] = (96,)
    steps = 32
    mean: tuple[float, ...]  # of the training images, in [0, 1]
    deviation: tuple[float, ...]
    budgets = {
        "smoke": Budget(
            Training(epochs=4, batch_size=64, lr=4e-3),
            Backbone("sequence", (64,) * 3),
            train_samples=3000,
            validation_samples=1000,
            test_samples=2000,
            time_limit=300,
        ),
        "laptop": Budget(
            Training(epochs=6, batch_size=64, lr=4e-3, augment=True),
            Backbone("sequence", (128,) * 3),
            train_samples=20_000,
            time_limit=1800,
        ),
        "paper": Budget(
            Training(epochs=256, batch_size=128, optimizer="sgd", lr=0.1, augment=True),
            Backbone("sequence", (512,) * 3),
            time_limit=7 * 86400,
        ),
    }

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return ``[B, T, C]`` of bytes ``[B, 3, 32, 32]``, normalised per colour."""
        mean, deviation = (torch.tensor(each, device=inputs.device).view(3, 1, 1) for each in (self.mean, self.deviation))
        return self.ordered((inputs.float() / 255 - mean).div_(deviation))

    def ordered(self, images: Tensor) -> Tensor:
        """Return the sequence ``[B, T, C]`` of ``images [B, 3, 32, 32]``."""
        return images.permute(0, 3, 1, 2).flatten(2)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the images mirrored or not, by chance: columns of every other sequence in reverse."""
        mirrored = torch.rand(len(batch.inputs), generator=generator) < 0.5
        return batch._replace(
            inputs=torch.where(mirrored.to(batch.inputs.device)[:, None, None], self.mirrored(batch.inputs), batch.inputs)
        )

    def mirrored(self, sequences: Tensor) -> Tensor:
        """Return the sequences of the mirror images."""
        return sequences.flip(1)


class CifarPixels(CifarColumns):
    """Images of 32x32 pixels, one pixel per step, row by row, ``[B, 1024, 3]``."""

    input_shape = (3,)
    steps = 1024
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=16, lr=4e-3),
            Backbone("sequence", (32,) * 5),
            train_samples=320,
            validation_samples=160,
            test_samples=160,
            time_limit=300,
        ),
        "laptop": Budget(Training(epochs=4, batch_size=32, lr=4e-3), Backbone("sequence", (32,) * 5), train_samples=6000, time_limit=1800),
        "paper": Budget(
            Training(epochs=256, batch_size=64, lr=1e-3, augment=True), Backbone("sequence", (256,) * 5), time_limit=14 * 86400
        ),
    }

    def ordered(self, images: Tensor) -> Tensor:
        """Return the sequence ``[B, 1024, 3]`` of ``images [B, 3, 32, 32]``."""
        return images.permute(0, 2, 3, 1).flatten(1, 2)

    def mirrored(self, sequences: Tensor) -> Tensor:
        """Return the sequences of the mirror images: every row in reverse."""
        return sequences.unflatten(1, (32, 32)).flip(2).flatten(1, 2)


class Original:
    """The images of CIFAR-10 themselves, by torchvision's loader, which downloads and verifies them; parts as of ``static/cifar10``."""

    source = Cifar10.source
    mean, deviation = Cifar10.mean, Cifar10.deviation

    def load(self, split: Split) -> Data:
        """Return images, uint8 ``[N, 3, 32, 32]``, and classes."""
        return Cifar10().load(split)


class JpegCopies:
    """The images of CIFAR-10 after JPEG compression at quality 75."""

    source = cifar10_jpeg.CIFAR10_JPEG_SOURCE
    mean, deviation = (0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606)

    def load(self, split: Split) -> Data:
        """Return images, uint8 ``[N, 3, 32, 32]``, and classes, which take turns."""
        images, labels = cifar10_jpeg.arrays("test" if split == "test" else "train")
        if split != "test":
            train, validation = held_out(len(images), 5000)
            part = train if split == "train" else validation
            images, labels = images[part], labels[part]
        return Data(images, labels)


class SequentialCifar10(Original, CifarColumns):
    """CIFAR-10, one column per step, ``[B, 32, 96]``."""

    card = TaskCard(
        name="sequences/scifar10",
        title="Sequential CIFAR-10, by columns",
        data="60,000 colour images of 32x32 pixels, one column per step",
        licence=Cifar10.card.licence,
        split=Cifar10.card.split,
        source=COLUMNS,
    )


class SequentialCifar10Pixels(Original, CifarPixels):
    """CIFAR-10, one pixel per step, ``[B, 1024, 3]``."""

    card = TaskCard(
        name="sequences/scifar10-pixels",
        title="Sequential CIFAR-10, by pixels",
        data="60,000 colour images of 32x32 pixels, one pixel per step",
        licence=Cifar10.card.licence,
        split=Cifar10.card.split,
        source=PIXELS,
    )


class SequentialCifar10Jpeg(JpegCopies, CifarColumns):
    """JPEG copies of CIFAR-10, one column per step, ``[B, 32, 96]``."""

    card = TaskCard(
        name="sequences/scifar10-jpeg",
        title="Sequential CIFAR-10 (JPEG copies), by columns",
        data="60,000 colour images of 32x32 pixels after JPEG compression at quality 75, one column per step",
        licence=LICENCE,
        split=SPLIT_RULE,
        source=COLUMNS,
    )


class SequentialCifar10JpegPixels(JpegCopies, CifarPixels):
    """JPEG copies of CIFAR-10, one pixel per step, ``[B, 1024, 3]``."""

    card = TaskCard(
        name="sequences/scifar10-jpeg-pixels",
        title="Sequential CIFAR-10 (JPEG copies), by pixels",
        data="60,000 colour images of 32x32 pixels after JPEG compression at quality 75, one pixel per step",
        licence=LICENCE,
        split=SPLIT_RULE,
        source=PIXELS,
    )
