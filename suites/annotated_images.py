"""Image files that are decoded when they are asked for, with boxes or masks: a map-style data set for worker processes.

    data = AnnotatedImages(paths, targets, Letterbox(256, 256))
    image, target = data[0]          # bytes [3, 256, 256], boxes [M, 5]

Sizes of images are read from their headers (``size_of``), so that boxes are checked and scaled before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from harness.plugin import DataError
from suites.letterbox import IGNORED, Letterbox


def size_of(path: Path) -> tuple[int, int]:
    """Return height and width that the header of an image file says; raise DataError if it has none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise DataError(_fault(path, error)) from None


def decode(path: Path, mode: str = "RGB") -> Tensor:
    """Return an image file as bytes ``[C, H, W]`` in a ``mode`` of Pillow ("P": the palette's indices); raise DataError if it is damaged.

    An image that holds anything but indices or grey is refused in mode "P", which would otherwise invent indices.
    """
    from PIL import Image
    from torchvision.transforms.v2 import functional

    try:
        with Image.open(path) as image:
            if mode == "P":
                if image.mode not in ("P", "L", "1"):
                    raise DataError(f"{path.name} holds colours ({image.mode}), not one class per pixel; save it as 8-bit grey or indexed")
                found = image.convert("L") if image.mode == "1" else image
            else:
                found = image.convert(mode)
            found.load()
            return functional.pil_to_tensor(found)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for some damaged PNG files
        if isinstance(error, DataError):
            raise
        raise DataError(_fault(path, error)) from None


def _fault(path: Path, error: Exception) -> str:
    what = getattr(error, "strerror", None) or str(error).replace(str(path), path.name) or type(error).__name__
    return f"{path.name} cannot be read as an image ({what}); get it again or leave it out"


def padded(rows: Sequence[Tensor]) -> Tensor:
    """Return targets ``[M_i, 5]`` of several images as ``[N, M, 5]``, filled up with objects of class -1; M is at least 1."""
    most = max([len(each) for each in rows] + [1])
    filled = torch.full((len(rows), most, 5), -1.0)
    for place, each in zip(filled, rows, strict=True):
        place[: len(each)] = each
    return filled


class AnnotatedImages(Dataset):
    """Images of ``paths`` in a ``letterbox`` as bytes ``[3, H, W]``, each with its target.

    ``targets`` are boxes ``[N, M, 5]`` in pixels of the letterbox, or the paths of masks, one for each image, whose pixels are classes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor | Sequence[Path],
        letterbox: Letterbox,
        classes: int | None = None,
        binary: bool = False,
    ) -> None:
        """Join files and targets; raise ValueError if they are not of one length.

        With ``classes`` given, masks may hold smaller numbers and 255 only; ``binary`` makes class 1 of whatever is not 0.
        """
        if len(paths) != len(targets):
            raise ValueError(f"{len(paths)} images but {len(targets)} targets")
        self.paths, self.letterbox, self.classes, self.binary = list(paths), letterbox, classes, binary
        self.boxes = targets if isinstance(targets, Tensor) else None
        self.masks = None if isinstance(targets, Tensor) else list(targets)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """Return an image ``[3, H, W]`` and its boxes ``[M, 5]`` or mask ``[H, W]``; raise DataError for a file that is damaged."""
        image = decode(self.paths[place])
        if self.masks is None:
            assert self.boxes is not None
            return self.letterbox.image(image), self.boxes[place]
        mask = self._mask(self.masks[place], image)
        return self.letterbox.image(image), self.letterbox.mask(mask)

    @property
    def targets(self) -> Tensor:
        """All targets; masks are read for it, which takes a while."""
        return self.boxes if self.boxes is not None else torch.stack([self[place][1] for place in range(len(self))])

    def _mask(self, path: Path, image: Tensor) -> Tensor:
        mask = decode(path, "P")[0]
        if mask.shape != image.shape[1:]:
            given, wanted = (f"{height} high and {width} wide" for height, width in (mask.shape, image.shape[1:]))
            raise DataError(f"mask {path.name} is {given}, its image {wanted}")
        mask = classes_in(mask, path, self.classes)
        return (mask != 0).to(mask.dtype) if self.binary else mask


def classes_in(mask: Tensor, path: Path, classes: int | None) -> Tensor:
    """Return ``mask`` (bytes) unchanged; raise DataError if it holds anything but 0 to ``classes - 1`` and 255."""
    unknown = mask[(mask >= classes) & (mask != IGNORED)] if classes is not None else mask[:0]
    if len(unknown):
        raise DataError(
            f"mask {path.name} holds class {int(unknown[0])}; allowed: 0 to {classes - 1}, and {IGNORED} for what does not count"
        )
    return mask
