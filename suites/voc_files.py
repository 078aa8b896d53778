"""Images and annotations in VOC's layout as a data set: read, checked, scaled to one size.

::

    VOCdevkit/VOC2007/{ImageSets/Main/trainval.txt, Annotations/*.xml, JPEGImages/*.jpg}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from harness.plugin import DataError
from suites import boxes, voc
from suites.annotated_images import AnnotatedImages, padded, size_of
from suites.letterbox import Letterbox


def listed(root: Path, year: str, image_set: str) -> list[tuple[Path, Path]]:
    """Return the (image, annotation) files of a set below ``root/VOCdevkit``, in the order of its list; raise DataError without it."""
    from torchvision.datasets import VOCDetection

    try:
        found = VOCDetection(root, year=year, image_set=image_set, download=False)
    except (RuntimeError, OSError) as error:
        raise DataError(f"no VOC{year} set {image_set!r}: {error}") from None
    return [(Path(image), Path(annotation)) for image, annotation in zip(found.images, found.annotations, strict=True)]


def every_tenth(pairs: Sequence[tuple[Path, Path]], validation: bool) -> list[tuple[Path, Path]]:
    """Return what a split takes of the training files: sorted by name, each tenth is validation."""
    return [pair for place, pair in enumerate(sorted(pairs)) if (place % 10 == 9) == validation]


def dataset(pairs: Sequence[tuple[Path, Path]], classes: Sequence[str], letterbox: Letterbox, warnings: list[str]) -> AnnotatedImages:
    """Return a data set of (image, annotation) files; say in ``warnings`` how many boxes were left out. Raises DataError (``voc.read``)."""
    rows: list[torch.Tensor] = []
    skipped: list[str] = []
    for image, annotation in pairs:
        height, width = size_of(image)
        found = voc.read(annotation, classes, height, width)
        skipped += [annotation.name] * found.empty
        scaled = letterbox.boxes(found.targets[:, 1:], height, width)
        rows.append(torch.cat([found.targets[:, :1], scaled], 1))
    if skipped:
        warnings.append(f"{len(skipped)} box{'es' if len(skipped) > 1 else ''} without area left out, the first in {skipped[0]}")
    targets = boxes.checked(padded(rows), len(classes), letterbox.height, letterbox.width)
    return AnnotatedImages([image for image, _ in pairs], targets, letterbox)
