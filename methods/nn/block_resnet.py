"""ResNet-9 and ResNet-11 as stages that a block-wise method can train one by one: one residual block each.

    residual_stages((3, 32, 32), WIDTHS["resnet9"], parts)      # three stages, strides 4, 8, 16

Layers: two of 3x3 before the first residual block, two in each of the residual blocks, a classifier: 2 + 2 * 3 + 1 = 9 and 2 + 2 * 4 + 1 =
11; 1x1 convolutions of shortcuts are not counted, as usual. Average poolings of 2x2 after these two layers and after each block. Source:
BlocTrain (Srinivasan and Roy, Frontiers in Neuroscience 15:603433, 2021) names the networks, in 3 and 4 blocks of few convolution, residual
and pooling layers; that there is one residual block in each, channels and poolings are ours.
"""

from __future__ import annotations

from torch import nn

from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.residual import ResidualBlock

STEM = 64
WIDTHS = {"resnet9": (128, 256, 512), "resnet11": (128, 256, 512, 512)}  # channels of the residual blocks


def residual_stages(input_shape: tuple[int, ...], widths: tuple[int, ...], parts: Parts, stem: int = STEM) -> nn.ModuleList:
    """Return a stage ``[T, B, C, H, W] -> [T, B, C', H / 2, W / 2]`` per width; the first has the stem, of ``stem`` channels.

    The stem has a pooling of its own. Branch and shortcut are added before the neurons, so all outputs are spikes. Raises ValueError for an
    input that is no image or too small for the poolings.
    """
    if len(input_shape) != 3:
        raise ValueError(f"a residual network is for images [C, H, W], not for samples of shape {list(input_shape)}")
    channels, height, width = input_shape
    if min(height, width) >> (len(widths) + 1) < 1:
        raise ValueError(f"an image of {height}x{width} cannot be halved {len(widths) + 1} times")
    before: list[nn.Module] = [
        Layer(parts.conv(channels, stem, 3, first=True), parts.norm(stem), parts.neuron(stem)),
        Layer(parts.conv(stem, stem, 3), parts.norm(stem), parts.neuron(stem)),
        parts.pool(2),
    ]
    stages = nn.ModuleList()
    channels = stem
    for features in widths:
        unit = nn.Sequential(*before, ResidualBlock(channels, features, 1, parts, connect="vanilla"))
        stages.append(nn.Sequential(unit, parts.pool(2)))
        channels, before = features, []
    return stages
