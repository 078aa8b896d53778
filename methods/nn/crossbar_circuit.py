"""The circuit of a resistive crossbar with wires, drivers and sense amplifiers that have a resistance, solved exactly.

Row i is driven by ``V_i`` through ``driver`` at column 0, neighbouring cells are ``row`` apart on a row wire and ``column`` apart on a
column wire, and the last cell of a column ends in ``sense`` at ground. With ``a_ij``, ``b_ij`` the potentials of the row and the column
wire at the cell of conductance ``G_ij``, Kirchhoff's law reads (a neighbour that does not exist has no term)::

    G_ij (a_ij - b_ij) + (a_ij - a_i,j-1) / row    + (a_ij - a_i,j+1) / row    = 0     left of column 0: (a_i0 - V_i) / driver
    G_ij (b_ij - a_ij) + (b_ij - b_i-1,j) / column + (b_ij - b_i+1,j) / column = 0     below the last row: b_last,j / sense
    I_j = b_last,j / sense

It is linear, so the conductances ``G_eff`` that a unit drive of each row shows give the currents ``I = G_eff V`` of every input.

A wire is a ladder, solved from end to end without a subtraction, so that resistances from 0 on are all right. With ``p_k`` the conductance
of everything up to node k (the wire to node k + 1 left out) and ``r_k`` the current that it would send to ground::

    p_k = G_k + p_k-1 / (1 + wire p_k-1)      r_k = i_k + r_k-1 / (1 + wire p_k-1)      v_k = (wire r_k + v_k+1) / (wire p_k + 1)

Two solvers. ``relaxation``: all row wires given the potentials of the columns, then all column wires given those of the rows, until the
currents stay. ``elimination``: a row of cells with its wire and driver, seen from the column wires, is a conductance matrix ``K_i = D - D
T^-1 D`` (D the cells, T the row wire) and a source; the same ladder then runs down the rows with matrices for ``p``, and no potential but
the last is asked for. One thread of an EPYC, a unit drive of each row, ms per tile of random cells (20 to 200 kohm, driver and sense 100
ohm, wires 5 ohm):

===========  ====  ===  ==
N            16    32   64
===========  ====  ===  ==
relaxation   0.33  4.2  44
elimination  0.17  1.9  14
===========  ====  ===  ==

Source: nodal analysis; the two solvers are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Solver = Literal["elimination", "relaxation"]
DRIVER = 1e-9  # ohm, the least: a source without resistance has no current to begin with
TOLERANCE = 1e-12  # relative change of the currents at which relaxation ends
SWEEPS = 10_000  # after which relaxation gives up
AT_ONCE = 1 << 22  # potentials that are held at once


@dataclass(frozen=True)
class Circuit:
    """Resistances in ohm, 0 or more."""

    driver: float = 100.0
    sense: float = 100.0
    row: float = 5.0
    column: float = 5.0
    solver: Solver = "elimination"

    @property
    def ideal(self) -> bool:
        """Whether nothing but the cells has a resistance."""
        return not (self.driver or self.sense or self.row or self.column)

    def seen(self, cells: Tensor) -> Tensor:
        """Return ``G_eff [tiles, columns, rows]`` of ``cells [tiles, rows, columns]`` in siemens; single precision loses some."""
        if self.ideal:
            return cells.mT.clone()
        drive = torch.eye(cells.shape[1], dtype=cells.dtype, device=cells.device)
        return torch.cat([self.currents(part, drive.expand(len(part), -1, -1)) for part in self._parts(cells)])

    def currents(self, cells: Tensor, drive: Tensor) -> Tensor:
        """Return the column currents ``[tiles, columns, inputs]`` (ampere) for voltages ``drive [tiles, rows, inputs]`` of rows."""
        if self.solver == "elimination":
            return self._eliminate(cells, drive)
        return self.relaxed(cells, drive)[1][:, -1] / self.sense if self.sense else self._relax(cells, drive)[2]

    def relaxed(self, cells: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Return the potentials of all row and column nodes, each ``[tiles, rows, columns, inputs]``, by line relaxation."""
        a, b, _ = self._relax(cells, drive)
        return a.permute(2, 1, 0, 3), b.permute(2, 0, 1, 3)

    def _parts(self, cells: Tensor) -> Iterator[Tensor]:
        _, rows, columns = cells.shape
        yield from cells.split(max(1, AT_ONCE // (rows * columns * max(rows, columns))))

    def _relax(self, cells: Tensor, drive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``a [columns, rows, tiles, inputs]``, ``b [rows, columns, tiles, inputs]`` and the currents.

        Raises RuntimeError where they do not settle.
        """
        driver = max(self.driver, DRIVER)
        along_rows, along_columns = cells.permute(2, 1, 0).unsqueeze(3), cells.permute(1, 2, 0).unsqueeze(3)
        row_wires, column_wires = _Ladder(along_rows, self.row, 1 / driver), _Ladder(along_columns, self.column)
        source = drive.transpose(0, 1) / driver
        b = cells.new_zeros(*along_columns.shape[:3], drive.shape[2])
        before = torch.zeros(())
        for _ in range(SWEEPS):
            injected = along_rows * b.transpose(0, 1)
            injected[0] += source
            a = row_wires.potentials(injected)
            b = column_wires.potentials(along_columns * a.transpose(0, 1), self.sense)
            now = column_wires.current
            if (now - before).abs().max() <= TOLERANCE * now.abs().max():
                return a, b, now.transpose(0, 1)
            before = now
        raise RuntimeError(f"line relaxation did not settle in {SWEEPS} sweeps for {self}; use solver='elimination'")

    def _eliminate(self, cells: Tensor, drive: Tensor) -> Tensor:
        tiles, rows, columns = cells.shape
        driver = max(self.driver, DRIVER)
        along = cells.permute(2, 0, 1).unsqueeze(3)  # [columns, tiles, rows, 1]
        unit = torch.eye(columns, dtype=cells.dtype, device=cells.device)[:, None, None].expand(-1, tiles, rows, -1)
        inverse = _Ladder(along, self.row, 1 / driver).potentials(unit).permute(1, 2, 0, 3)  # [tiles, rows, columns, columns]
        seen = torch.diag_embed(cells) - cells.unsqueeze(3) * inverse * cells.unsqueeze(2)
        sources = cells * inverse[..., 0] / driver  # current into each column per volt of the row
        total, current = seen[:, 0], sources[:, 0, :, None] * drive[:, 0, None]
        one = torch.eye(columns, dtype=cells.dtype, device=cells.device)
        for i in range(1, rows):
            if self.column:
                both = torch.linalg.solve(one + self.column * total, torch.cat([total, current], 2))
                total, current = both[..., :columns], both[..., columns:]
            total = total + seen[:, i]
            current = current + sources[:, i, :, None] * drive[:, i, None]
        return torch.linalg.solve(one + self.sense * total, current) if self.sense else current


class _Ladder:
    """Wires with cells to ground (or to known potentials) at each node, along the first dimension of ``cells [N, ...]``."""

    def __init__(self, cells: Tensor, wire: float, entry: float = 0.0) -> None:
        """Find what depends on the cells only; ``entry`` is a conductance at the first node, e.g. of its driver."""
        self.wire = wire
        p = [cells[0] + entry]
        for cell in cells[1:]:
            p.append(cell + p[-1] / (1 + wire * p[-1]))
        self.p = p
        self.share = [1 / (1 + wire * each) for each in p]
        self.current = cells  # of the exit, after a call of ``potentials``

    def potentials(self, injected: Tensor, exit_resistance: float | None = None) -> Tensor:
        """Return the potentials ``[N, ..., M]`` for currents of the same shape; the last node is open or goes to ground."""
        r = injected.clone()
        for k in range(1, len(r)):
            r[k].addcmul_(r[k - 1], self.share[k - 1].expand_as(r[k]))
        last = self.p[-1]
        if exit_resistance is None:
            r[-1] /= last
        else:
            self.current = r[-1] / (1 + exit_resistance * last)
            r[-1] = exit_resistance * self.current
        for k in range(len(r) - 2, -1, -1):
            r[k].mul_(self.wire).add_(r[k + 1]).mul_(self.share[k])
        return r
