"""A network of T small networks, one per step, that exchange information through the membranes at the ends of their stages.

With ``V_l[t]`` the membrane potential of the turn-on neurons of stage l at step t (nothing before the first), x the image after the stem::

    z_l[t] = Down_l(V_{l-1}[t]) + Up_l(V_{l+1}[t-1])        Down_0 the identity of x; no Up in the first step and for the last stage
    V_l[t] = Blocks_l(z_l[t]) + alpha_l * V_l[t-1]          alpha per channel and step, |alpha| >= alpha_min

    Down_l = BN(conv(spike(.)))    3x3 of stride 2, or 1x1 where the size stays
    Up_l   = enlarged(BN(conv1x1(spike(.))))    nearest neighbours
    Blocks_l: two blocks of methods.nn.turn_off_block; the second has no gamma, and its PW2 and DW2 are those of all T networks

All other neurons are turned off: they spike by the potential of their step alone. The carried membrane is not reset, so that it can be
recovered from the step after (``methods.nn.reversible_steps``). ``frames``: step t sees frame t through a stem of its own, which is then a
part of its first stage. ``split_input``: the stem has T times the channels, and step t gets its share of them.

Source: "High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training Memory and O(1) Inference Cost" (Hu et al., ICML
2024), by its official code, where the paper differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import floor, prod, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layout import channels_last
from methods.nn.reversible_steps import ReversibleSteps, advance, retreat, still_statistics
from methods.nn.scaled_std_conv import ScaledStdConv2d
from methods.nn.stepping import Stateful
from methods.nn.synapse import Conv2d
from methods.nn.turn_off import TurnOff
from methods.nn.turn_off_block import TurnOffBlock, way_back

EXPANSION = 4
LEAST = 4  # channels of a stage that was made narrower
Criterion = Callable[[Tensor], Tensor]  # outputs of a step [1, B, ...] -> a number


@dataclass(frozen=True)
class Plan:
    """Sizes of each of ``steps`` networks: stage ``widths``, their ``strides``, (kernel, stride) of the ``stem``, kernel of the blocks."""

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    stem: tuple[tuple[int, int], ...]
    kernel: int = 5
    steps: int = 1

    def levels(self, image: tuple[int, ...]) -> list[Level]:
        """Return the levels of an image of ``[H, W]``, one per stage."""
        total = prod(stride for _, stride in self.stem)
        size, found = image, []
        for _, stride in self.stem:
            size = tuple(-(-side // stride) for side in size)
        for width, stride in zip(self.widths, self.strides, strict=True):
            size, total = tuple(-(-side // stride) for side in size), total * stride
            found.append(Level(width, size, total))
        return found

    def divided(self, steps: int, image: tuple[int, ...]) -> Plan:
        """Return the plan for another number of steps whose networks have, together, as many synaptic operations; rounded down.

        All widths are scaled by one m: operations of dense convolutions go with m^2, those of depthwise ones with m. So do weights.
        """
        levels = self.levels(image)
        pixels = [prod(level.size) for level in levels]
        dense = sum(4 * EXPANSION * width**2 * size for width, size in zip(self.widths, pixels, strict=True))
        for number, (a, b) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True), start=1):
            dense += a * b * pixels[number] * (10 if self.strides[number] > 1 else 2)  # down and up
        thin = sum(4 * self.kernel**2 * width * size for width, size in zip(self.widths, pixels, strict=True))
        m = (sqrt(thin**2 + 4 * dense * (dense + thin) * self.steps / steps) - thin) / (2 * dense)
        return replace(self, widths=tuple(max(min(width, LEAST), floor(m * width)) for width in self.widths), steps=steps)


class Norm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` on ``[T, B, C, H, W]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x``."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Resample(nn.Module):
    """Spikes, a convolution without bias, batch normalisation, and, if a ``size`` is given, nearest neighbours of it."""

    def __init__(self, features_in: int, features_out: int, kernel: int, stride: int = 1, size: tuple[int, ...] | None = None) -> None:
        """Make the parts."""
        super().__init__()
        self.neuron = TurnOff()
        self.conv = Conv2d(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=False)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        self.norm: nn.Module = Norm(features_out)
        self.size = size

    def forward(self, v: Tensor) -> Tensor:
        """Return the current ``[T, B, C', H', W']`` of potentials ``[T, B, C, H, W]``."""
        x = self.norm(self.conv(self.neuron(v)))
        if self.size is None or tuple(x.shape[3:]) == self.size:
            return x
        return F.interpolate(x.flatten(0, 1), size=self.size).unflatten(0, x.shape[:2])

    @torch.no_grad()
    def fold(self) -> None:
        """Take the normalisation, by its running statistics, into the convolution."""
        if not isinstance(self.norm, Norm):
            return
        norm = self.norm
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.conv.weight.mul_(factor[:, None, None, None])
        self.conv.bias = nn.Parameter(norm.bias - factor * norm.running_mean)
        self.norm = nn.Identity()


class StageStep(nn.Module):
    """One stage of one of the networks: ``Blocks(Down(below) + Up(above))``, and ``alpha [C]``, None in the first step."""

    alpha: nn.Parameter | None

    def __init__(self, down: nn.Module, up: nn.Module | None, blocks: nn.Module, channels: int, alpha: float | None) -> None:
        """Join the parts; ``alpha`` is where it starts."""
        super().__init__()
        self.down, self.up, self.blocks = down, up, blocks
        self.alpha = None if alpha is None else nn.Parameter(torch.full((channels,), float(alpha)))

    def forward(self, below: Tensor, above: Tensor | None) -> Tensor:
        """Return what is added to ``alpha * V[t-1]``."""
        z = self.down(below)
        return self.blocks(z if self.up is None or above is None else z + self.up(above))


class TemporalReversible(Stateful):
    """``[T, B, C, H, W] -> answers [T, B, ...]``; see the module's docstring.

    ``exits``: makes the modules that answer at each step, T of them or one for all, each from the list of the stages' potentials
    ``[1, B, C, H, W]``. Without ``frames`` the images of all steps are the same, and the first is looked at. ``wide``: potentials are
    carried in double precision, for the inverse. ``loss`` is what to train by. Raises ValueError for more steps than there are networks.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        plan: Plan,
        exits: Callable[[list[Level]], Sequence[nn.Module]],
        frames: bool = False,
        split_input: bool = False,
        gamma: float = 1.0,
        alpha: float = 0.5,
        alpha_min: float = 0.1,
        wide: bool = True,
    ) -> None:
        """Make stem, networks and exits."""
        super().__init__()
        self.frames, self.alpha_min, self.wide = frames, alpha_min, wide
        self.levels = plan.levels(input_shape[1:])
        widths = plan.widths
        self.share = widths[0] if split_input else None
        stem_width = widths[0] * (plan.steps if split_input else 1)
        self.stem = nn.Identity() if frames else stem(input_shape[0], stem_width, plan.stem)
        backs = [way_back(width, plan.kernel, EXPANSION) for width in widths]
        self.steps = nn.ModuleList()
        for t in range(plan.steps):
            stages = nn.ModuleList()
            for number, level in enumerate(self.levels):
                down: nn.Module = stem(input_shape[0], widths[0], plan.stem) if frames else nn.Identity()
                if number:
                    halves = plan.strides[number] > 1
                    down = Resample(widths[number - 1], level.channels, 3 if halves else 1, plan.strides[number])
                up = Resample(widths[number + 1], level.channels, 1, size=level.size) if t and number + 1 < len(widths) else None
                first = TurnOffBlock(level.channels, plan.kernel, EXPANSION, gamma)
                second = TurnOffBlock(level.channels, plan.kernel, EXPANSION, back=backs[number])
                stages.append(StageStep(down, up, nn.Sequential(first, second), level.channels, alpha if t else None))
            self.steps.append(stages)
        self.exits = nn.ModuleList(exits(self.levels))

    # Answers --------------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return the answers at every step of ``x``."""
        carried = self.carried()
        begun, source, states = (int(carried[0]), carried[1], carried[2:]) if carried else (0, None, None)
        if begun + len(x) > len(self.steps):
            raise ValueError(f"there are networks for {len(self.steps)} time steps, {begun + len(x)} were given")
        self.clamp()
        if self.frames or source is None:
            source = self.source(x)
        answers = []
        for t in range(begun, begun + len(x)):
            states = advance(self.steps[t], self.input_at(source, t - begun if self.frames else t), states, self.wide)
            answers.append(self.exit_at(t)([state.to(x.dtype) for state in states]))
        assert states is not None
        self.carry(torch.tensor(begun + len(x)), source[-1:], *states)
        return torch.cat(answers)

    def source(self, x: Tensor) -> Tensor:
        """Return what the networks see of ``x [T, B, C, H, W]``: its frames, or the first image after the stem ``[1, B, C', H', W']``."""
        x = x if self.frames else x[:1]
        return self.stem(channels_last(x) if x.device.type == "cpu" else x)

    def input_at(self, source: Tensor, t: int) -> Tensor:
        """Return what network t sees, ``[1, B, C, H, W]``."""
        if self.frames:
            return source[t : t + 1]
        return source if self.share is None else source[:, :, t * self.share : (t + 1) * self.share]

    def exit_at(self, t: int) -> nn.Module:
        """Return the module that answers at step t."""
        return self.exits[min(t, len(self.exits) - 1)]

    # Training -------------------------------------------------------------------------------------------------------

    def loss(self, x: Tensor, criterion: Criterion, weights: Sequence[float], reversible: bool = True) -> Tensor:
        """Return the sum over steps of ``weights[t] * criterion(answers of step t)``; a step of weight 0 is not asked.

        ``reversible`` keeps for backward what one level needs, and otherwise, with equal gradients, what all steps do.
        """
        self.clamp()
        source, supervised = self.source(x), Supervised(self, criterion, weights)
        if reversible:
            outside = {id(p) for p in self.stem.parameters()}
            inside = [p for p in self.parameters() if p.requires_grad and id(p) not in outside]
            return ReversibleSteps.apply(supervised, source, *inside)
        states, losses = None, []
        for t, levels in enumerate(self.steps):
            states = advance(levels, self.input_at(source, t), states, self.wide)
            losses.append(supervised.loss_at(t, [state.to(x.dtype) for state in states]))
        return torch.stack([loss for loss in losses if loss is not None]).sum()

    @torch.no_grad()
    def clamp(self) -> None:
        """Move every alpha that is too near to 0 to ``alpha_min`` on its side of 0, a 0 itself to the positive one."""
        for module in self.modules():
            if isinstance(module, StageStep) and module.alpha is not None:
                alpha = module.alpha.data  # not in the eyes of a graph that may hold it: it was clamped then too
                torch.where(alpha < 0, alpha.clamp_max(-self.alpha_min), alpha.clamp_min(self.alpha_min), out=alpha)

    # Inference ------------------------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Take gamma, weight standardisation and normalisations into the weights, and the two layers of an exit into one."""
        for module in list(self.modules()):
            if module is not self and hasattr(module, "fold"):
                module.fold()

    @torch.no_grad()
    def reconstruction_error(self, x: Tensor) -> tuple[list[float], float]:
        """Return the largest error of the potentials recovered from the last step, ``[T-1]`` from the first on, and their largest size."""
        source, passed = self.source(x), []
        with still_statistics(self.modules()):
            for t, levels in enumerate(self.steps):
                passed.append(advance(levels, self.input_at(source, t), passed[-1] if t else None, self.wide))
            states, errors = passed[-1], []
            for t in range(len(self.steps) - 1, 0, -1):
                states = retreat(self.steps[t], self.input_at(source, t), states)
                errors.append(max((a - b).abs().max().item() for a, b in zip(states, passed[t - 1], strict=True)))
        return errors[::-1], max(v.abs().max().item() for states in passed for v in states)


@dataclass(frozen=True)
class Supervised:
    """A network with what it is trained by: ``methods.nn.reversible_steps.Levels``."""

    net: TemporalReversible
    criterion: Criterion
    weights: Sequence[float]

    @property
    def steps(self) -> nn.ModuleList:
        """The levels of every step."""
        return self.net.steps

    @property
    def wide(self) -> bool:
        """Whether states are kept in double precision."""
        return self.net.wide

    def input_at(self, x: Tensor, t: int) -> Tensor:
        """Return the input of step t."""
        return self.net.input_at(x, t)

    def loss_at(self, t: int, states: Sequence[Tensor]) -> Tensor | None:
        """Return the loss of the answers of step t."""
        return self.weights[t] * self.criterion(self.net.exit_at(t)(states)) if self.weights[t] else None

    def loss_parameters(self, t: int) -> list[nn.Parameter]:
        """Return the parameters of the exit of step t."""
        return [p for p in self.net.exit_at(t).parameters() if p.requires_grad]

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules of the network."""
        return self.net.modules()


def stem(features_in: int, features_out: int, convolutions: Sequence[tuple[int, int]]) -> nn.Sequential:
    """Return standardised convolutions of (kernel, stride) without neurons between them."""
    layers = [ScaledStdConv2d(features_out if i else features_in, features_out, *each) for i, each in enumerate(convolutions)]
    return nn.Sequential(*layers)
