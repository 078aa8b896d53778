"""Random changes of training images, a whole batch at once: shifts, flips, resized crops.

Each takes ``images [B, C, H, W]`` and a generator of the CPU, so that every device draws the same::

    images = flipped(shifted(images, 4, generator), generator)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(images: Tensor, most: int, generator: torch.Generator, background: float | Tensor = 0.0) -> Tensor:
    """Return ``images [B, C, H, W]``, each moved by its own whole number of pixels in ``[-most, most]`` both ways.

    What comes in is ``background``, one number or one for each channel ``[C]``. The same as padding by ``most`` and cropping at random.
    """
    batch, channels, height, width = images.shape
    colour = torch.as_tensor(background, dtype=images.dtype, device=images.device).expand(channels)
    padded = colour.view(1, -1, 1, 1).repeat(batch, 1, height + 2 * most, width + 2 * most)
    padded[:, :, most : most + height, most : most + width] = images
    offset = torch.randint(0, 2 * most + 1, (2, batch, 1), generator=generator).to(images.device)
    rows = (offset[0] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (offset[1] + torch.arange(width, device=images.device))[:, None, None, :]
    sample = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[sample, channel, rows, columns]


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images [B, C, H, W]``, each mirrored left to right with probability one half."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def resized_crops(
    images: Tensor,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Return a random rectangle of each of ``images [B, C, H, W]``, resized to ``[H, W]`` by bilinear interpolation.

    Its area is uniform in ``scale`` (of the image's), the logarithm of width over height uniform in those of ``ratio``; sides that exceed
    the image are cut to it. Source: Szegedy et al., Going deeper with convolutions, CVPR 2015, section 6.
    """
    count = len(images)
    drawn = torch.rand(4, count, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * drawn[0]
    aspect = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * drawn[1])
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    # In the coordinates of grid_sample the image reaches from -1 to 1.
    x, y = (2 * drawn[2] - 1) * (1 - width), (2 * drawn[3] - 1) * (1 - height)
    zero = torch.zeros(count)
    window = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1).to(images.device, images.dtype)
    grid = F.affine_grid(window, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
