"""Parts that depend on the size of what passes them, e.g. one threshold per neuron: their shapes are found by one pass through the network.

::

    net = Network(...)                                # with Sized(lambda shape: LIF(learn=("threshold",), channels=shape)) as neurons
    settle(net, torch.zeros(1, 1, 3, 32, 32))         # every Sized is replaced by the module for the shape that it met

A parameter exists from then on, so optimisers, checkpoints and copies of the network need to know nothing of this.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Sized(nn.Module):
    """A place for a module whose shape is not known yet; it keeps the shape ``[T, B, *shape]`` of its input and returns the input."""

    def __init__(self, make: Callable[[tuple[int, ...]], nn.Module]) -> None:
        """Keep ``make``, which returns the module for a shape (without T and B)."""
        super().__init__()
        self.make = make
        self.shape: tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``; raise ValueError where a call before had another size, for which one module cannot be made."""
        shape = tuple(x.shape[2:])
        if self.shape not in (None, shape):
            raise ValueError(f"a sized part met inputs of {list(self.shape or ())} and of {list(shape)}; it needs one size")
        self.shape = shape
        return x


@torch.no_grad()
def settle(net: nn.Module, sequence: Tensor) -> None:
    """Replace every ``Sized`` part of ``net``, in place, by its module for the size that ``sequence [T, B, ...]`` has there.

    The network is run in eval mode, and left in the modes it had. Raises ValueError for a part that the sequence does not pass.
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    net(sequence)
    for module, training in modes.items():
        module.training = training
    made: dict[Sized, nn.Module] = {}
    for name, parent in list(net.named_modules()):
        for child, part in list(parent.named_children()):
            if not isinstance(part, Sized):
                continue
            if part.shape is None:
                raise ValueError(f"{name}.{child} was not passed by the sequence, so its size is unknown")
            if part not in made:
                made[part] = part.make(part.shape)
            setattr(parent, child, made[part])
