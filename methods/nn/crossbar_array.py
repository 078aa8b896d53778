"""``Crossbar``: what is left of a weight matrix when crossbars hold it.

::

    held = Crossbar(size=64).hold(weight, groups, generator)      # programmed once: devices, wires, drivers
    held.weight                                                   # what every input meets from then on
    held.gain                                                     # <W_eff, W> / <W_eff, W_eff>, the scale an ADC would be given

``W_eff = (G_eff+ - G_eff-) scale / (on - off)`` with ``G_eff`` of ``methods.nn.crossbar_circuit``, tile by tile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from methods.nn.crossbar_circuit import Circuit
from methods.nn.crossbar_devices import Devices
from methods.nn.crossbar_tiles import as_matrices, as_weight, by_tile, count_tiles, tilewise

DRIVEN = 0.2  # share of the rows that are driven for the residual
INPUTS = 32  # drives of the residual


@dataclass(frozen=True)
class Crossbar:
    """How weights are held; ``read_noise`` is the relative deviation of devices that is redrawn at every read."""

    size: int = 64
    devices: Devices = field(default_factory=Devices)
    circuit: Circuit = field(default_factory=Circuit)
    read_noise: float = 0.0

    def hold(self, weight: Tensor, groups: int, generator: torch.Generator) -> Held:
        """Program the ``weight [K, C / groups, ...]``; what is random is drawn from ``generator`` (on the CPU)."""
        if self.devices.ideal and self.circuit.ideal and not self.read_noise:
            return Held(self, weight, groups, weight)
        conductances, scale = self.devices.conductances(as_matrices(weight, groups))
        cells = self.devices.programmed(conductances, generator)
        seen = self.seen(cells)
        return Held(self, weight, groups, as_weight(self.devices.weights(seen, scale), weight), Cells(cells, seen, scale))

    def seen(self, cells: Tensor) -> Tensor:
        """Return the conductances that ``cells [..., rows, columns]`` show through their wires."""
        return cells if self.circuit.ideal else tilewise(cells, self.size, lambda tiles: self.circuit.seen(tiles).mT)


@dataclass(frozen=True)
class Cells:
    """Conductances ``[2, groups, rows, columns]`` as ``programmed`` and as ``seen`` through the wires; ``scale`` of the weight."""

    programmed: Tensor
    seen: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Held:
    """A weight on crossbars; without any effect it is the weight itself, and there are no ``cells``."""

    crossbar: Crossbar
    ideal: Tensor  # the weight that was asked for
    groups: int
    weight: Tensor  # that inputs meet
    cells: Cells | None = None

    @property
    def gain(self) -> float:
        """The factor that brings ``weight`` closest to ``ideal``; 1 for a weight of zeros."""
        weight, ideal = self.weight.double(), self.ideal.double()
        square = float((weight * weight).sum())
        return float((weight * ideal).sum()) / square if square else 1.0

    @property
    def tiles(self) -> int:
        """How many tiles hold it, plus and minus apart."""
        return 2 * count_tiles(as_matrices(self.ideal, self.groups), self.crossbar.size)

    def at_a_read(self, generator: torch.Generator) -> Tensor:
        """Return the effective weights ``[groups, rows, columns]`` of one read, with its own noise.

        A device's share of the current follows its noise; what the noise does to the voltages of the others is left out (ours: otherwise
        the circuit would have to be solved at each step). That is off by 1 % of the noise at 16 rows and drivers of 100 ohm, by 3 % at 64
        rows, and by 20 % at 64 rows and drivers of 1 kohm (RMS, noise 0.1, normal weights).
        """
        if self.cells is None or not self.crossbar.read_noise:
            return as_matrices(self.weight, self.groups)
        devices = self.crossbar.devices
        noisy = devices.varied(self.cells.programmed, self.crossbar.read_noise, generator)
        return devices.weights(self.cells.seen * (noisy / self.cells.programmed), self.cells.scale).to(self.weight.dtype)

    def non_ideality(self, generator: torch.Generator) -> tuple[float, float]:
        """Return the non-ideality factor and the residual of its tiles.

        The first is the mean of ``(I_ideal - I) / I_ideal`` with all rows driven, ``I_ideal = G^T V``; the second is what one gain does not
        mend, ``RMS(alpha I - I_ideal) / RMS(I_ideal)`` with ``alpha = <I, I_ideal> / <I, I>``, with one row in five driven at random.
        """
        if self.cells is None:
            return 0.0, 0.0
        size = self.crossbar.size
        ideal, real = (by_tile(cells, size) for cells in (self.cells.programmed, self.cells.seen))  # [2, g, tiles, size, columns]
        all_driven = ideal.sum(-2)
        factor = float(((all_driven - real.sum(-2)) / all_driven).mean())
        drive = (torch.rand(INPUTS, size, generator=generator, dtype=torch.float64) < DRIVEN).to(ideal)
        wanted, found = drive @ ideal, drive @ real
        alpha = (found * wanted).sum() / (found * found).sum().clamp(min=torch.finfo(found.dtype).tiny)
        return factor, float((alpha * found - wanted).norm() / wanted.norm()) if bool(wanted.any()) else 0.0
