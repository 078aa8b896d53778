"""One size for all images: shrink or enlarge an image until it just fits, keep its proportions, fill what is left.

Boxes and masks move with the image (torchvision's ``transforms.v2``)::

    box = Letterbox(120, 160)
    image, boxes = box.image(image), box.boxes(boxes, height=480, width=640)
    boxes = box.undo(boxes, height=480, width=640)          # answers, back in pixels of the original

The image lies at the top left; what is left over is at the right or at the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = 255  # the class of a mask's pixels that are neither asked nor counted


@dataclass(frozen=True)
class Letterbox:
    """A canvas of ``height`` x ``width`` pixels."""

    height: int
    width: int

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that an image of ``height`` x ``width`` gets, each at least 1."""
        scale = min(self.height / height, self.width / width)
        return min(max(round(height * scale), 1), self.height), min(max(round(width * scale), 1), self.width)

    def image(self, image: Tensor, fill: int = 0) -> Tensor:
        """Return ``image [C, h, w]`` (bytes) as ``[C, H, W]``, smoothed while it shrinks."""
        from torchvision import tv_tensors

        return self._placed(tv_tensors.Image(image), fill)

    def mask(self, mask: Tensor) -> Tensor:
        """Return the classes ``mask [h, w]`` as ``[H, W]``: those of the nearest pixel, ``IGNORED`` beside the image."""
        from torchvision import tv_tensors

        return self._placed(tv_tensors.Mask(mask[None]), IGNORED)[0]

    def boxes(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Return where ``boxes [M, 4]`` of an image of ``height`` x ``width`` lie on the canvas."""
        if not len(boxes):
            return boxes.clone()
        from torchvision import tv_tensors
        from torchvision.transforms.v2 import functional

        given = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        return functional.resize(given, list(self.fitted(height, width))).as_subclass(Tensor)

    def undo(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Return ``boxes [M, 4]`` on the canvas in pixels of an image of ``height`` x ``width``."""
        new_height, new_width = self.fitted(height, width)
        return boxes * torch.tensor([width / new_width, height / new_height] * 2, dtype=boxes.dtype, device=boxes.device)

    def _placed(self, picture: Tensor, fill: int) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional
        from torchvision.tv_tensors import Mask

        mode = InterpolationMode.NEAREST_EXACT if isinstance(picture, Mask) else InterpolationMode.BILINEAR
        height, width = self.fitted(*picture.shape[-2:])
        resized = functional.resize(picture, [height, width], interpolation=mode, antialias=True)
        return functional.pad(resized, [0, 0, self.width - width, self.height - height], fill=fill).as_subclass(Tensor)
