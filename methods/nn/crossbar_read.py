"""``on_crossbars``: a network whose synapses read their weights from crossbars, for as long as the context lasts.

::

    with on_crossbars({module: Read(held) for module, held in ...}):
        net(x)

A synapse is a torch ``Linear``, ``Conv1d`` or ``Conv2d``. What it meets its input with is ``effective_weight`` where it has such an
attribute (scaled weight standardisation, binarisation), else ``weight`` (stored, or computed by a parametrisation). The context replaces
just that, by a class of the module's own, so that a network that takes the weight from the synapse (event-exact layers) sees it as well;
the parameters are not touched and the modules are what they were afterwards.

Where a read is more than a fixed matrix, because of noise at every read or of an ADC, the product is computed here instead, step by step
and tile by tile: the first dimension of ``[T, B, ...]`` is time, and so is the place along a convolution ``over_time``; an input without it
is one read. The ADC (ours) turns the difference of the plus and minus current of each column of each tile into one of ``2^bits - 1`` even
values from ``-limit`` to ``limit``, where ``limit`` is the largest current of the layer that ``calibrating`` met.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.crossbar_array import Crossbar, Held
from methods.nn.crossbar_tiles import by_tile

Synapse: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d


def effective_weight(module: nn.Module) -> Tensor:
    """Return the weight that the input of a synapse meets, detached."""
    return getattr(module, "effective_weight", module.weight).detach()


class Read:
    """How a synapse reads what crossbars hold: times ``gain``, through an ADC of ``adc_bits`` (0: none), with noise from ``generator``."""

    def __init__(self, held: Held, gain: float = 1.0, adc_bits: int = 0, generator: torch.Generator | None = None) -> None:
        """Read ``held``."""
        self.held, self.gain, self.adc_bits = held, gain, adc_bits
        self.generator = generator or torch.Generator()
        self.limit = 0.0  # of the ADC
        self.calibrating = False
        self.weight = held.weight if gain == 1.0 else held.weight * gain

    @property
    def fixed(self) -> bool:
        """Whether every read is the same matrix product."""
        return not (self.adc_bits or self.held.crossbar.read_noise)

    def currents(self, module: Synapse, x: Tensor) -> Tensor:
        """Return what ``module`` computes from ``x``, read by read."""
        space, over_time = module.weight.dim() - 2, getattr(module, "over_time", False)
        if x.dim() <= 2 + space:
            return self._read(module, x, space, over_time)
        return torch.stack([self._read(module, now, space, over_time) for now in x.unbind(0)])

    def _read(self, module: Synapse, x: Tensor, space: int, over_time: bool) -> Tensor:
        """Return the output for inputs ``x [B, C, ...]`` of one step; of a convolution over time, each place is a read."""
        if space:
            rows, shape = _unfolded(module, x)
            reads = rows.split(1, -1) if over_time else [rows]
            product = torch.cat([self._product(read) for read in reads], -1).unflatten(-1, shape)
        else:
            product = self._product(x.reshape(-1, 1, x.shape[-1], 1)).flatten(1).unflatten(0, x.shape[:-1])
        if module.bias is None:
            return product
        return product + module.bias.view(-1, *[1] * space)

    def _product(self, rows: Tensor) -> Tensor:
        """Return ``[B, K, places]`` of ``rows [B, groups, rows, places]``, one read of the crossbars."""
        matrices = self.held.at_a_read(self.generator)
        if not self.adc_bits:
            return (matrices.mT @ rows).flatten(1, 2) * self.gain
        size = self.held.crossbar.size
        parts = by_tile(matrices, size).mT @ by_tile(rows, size)  # [B, groups, tiles, columns, places]
        if self.calibrating:
            self.limit = max(self.limit, float(parts.abs().max()))
        elif self.limit:
            step = self.limit / (2 ** (self.adc_bits - 1) - 1)
            parts = (parts / step).round().clamp(-(2 ** (self.adc_bits - 1)) + 1, 2 ** (self.adc_bits - 1) - 1) * step
        return parts.sum(2).flatten(1, 2) * self.gain


def _unfolded(module: nn.Conv1d | nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return what each place of a convolution sees, ``[B, groups, rows, places]``, and the shape of the places."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    settings = module.kernel_size, module.dilation, module.stride
    shape = tuple((side - d * (k - 1) - 1) // s + 1 for side, k, d, s in zip(x.shape[2:], *settings, strict=True))
    if x.dim() == 3:  # an image of one line
        x, settings = x.unsqueeze(2), tuple((1, *each) for each in settings)
    kernel, dilation, stride = settings
    return F.unfold(x, kernel, dilation, 0, stride).unflatten(1, (module.groups, -1)), shape


@contextmanager
def on_crossbars(reads: Mapping[nn.Module, Read]) -> Iterator[None]:
    """Let modules read from crossbars; see the module's docstring."""
    before = {module: type(module) for module in reads}
    try:
        for module, read in reads.items():
            module.__class__ = _class(before[module], read)
        yield
    finally:
        for module, kind in before.items():
            module.__class__ = kind


def _class(kind: type, read: Read) -> type:
    """Return a class of modules like ``kind`` that read their weight by ``read``."""
    if not read.fixed:
        return type(kind.__name__, (kind,), {"forward": lambda self, input: read.currents(self, input)})
    name = "effective_weight" if hasattr(kind, "effective_weight") else "weight"
    return type(kind.__name__, (kind,), {name: property(lambda self: read.weight)})


def disobedient(synapses: Mapping[str, Synapse], run: Callable[[], object]) -> list[str]:
    """Return the names of synapses that compute with another weight than the one they show, and so cannot be put on crossbars.

    ``run`` calls the network on a few samples; each synapse is given its negated weight for that.
    """
    reads = {module: Read(_negated(module)) for module in synapses.values()}
    found = []

    def check(name: str) -> Callable[[Synapse, tuple[Tensor, ...], Tensor], None]:
        def compare(module: Synapse, args: tuple[Tensor, ...], output: Tensor) -> None:
            wanted = reads[module].currents(module, args[0])
            if wanted.shape != output.shape or not torch.allclose(wanted, output, rtol=1e-3, atol=1e-3 * float(wanted.abs().amax())):
                found.append(name)

        return compare

    with on_crossbars(reads):
        handles = [module.register_forward_hook(check(name)) for name, module in synapses.items()]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
    return sorted(set(found))


def _negated(module: Synapse) -> Held:
    weight = effective_weight(module)
    return Held(Crossbar(), weight, getattr(module, "groups", 1), -weight)


def in_order(net: nn.Module, run: Callable[[], object]) -> dict[str, Synapse]:
    """Return the synapses of ``net`` in the order in which ``run``, which calls the network, comes to them; those it does not, last."""
    synapses = {name: module for name, module in net.named_modules() if isinstance(module, Synapse)}
    order: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: order.update({name: order.get(name, len(order))})

    handles = [module.register_forward_pre_hook(note(name)) for name, module in synapses.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: synapses[name] for name in sorted(synapses, key=lambda name: order.get(name, math.inf))}
