"""The circuit of a crossbar: closed forms, Kirchhoff's laws, a sparse direct solver, and the figures of non-ideality."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from methods.nn.crossbar_circuit import Circuit

ON, OFF = 1 / 20e3, 1 / 200e3
SOLVERS = ("elimination", "relaxation")


def cells(tiles: int, rows: int, columns: int | None = None, on: float = ON, off: float = OFF) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return off + (on - off) * torch.rand(tiles, rows, columns or rows, generator=generator, dtype=torch.float64)


def by_sparse_lu(circuit: Circuit, conductances: Tensor, drive: Tensor) -> Tensor:
    """Column currents ``[columns, inputs]`` of one tile: all nodes at once."""
    numpy, sparse = pytest.importorskip("numpy"), pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    rows, columns = conductances.shape
    matrix = sparse.lil_matrix((2 * rows * columns, 2 * rows * columns))
    injected = numpy.zeros((2 * rows * columns, drive.shape[1]))

    def node(wire: int, i: int, j: int) -> int:
        return (wire * rows + i) * columns + j

    def join(one: int, other: int, conductance: float) -> None:
        for a, b in ((one, other), (other, one)):
            matrix[a, a] += conductance
            matrix[a, b] -= conductance

    for i, j in product(range(rows), range(columns)):
        join(node(0, i, j), node(1, i, j), float(conductances[i, j]))
        if j:
            join(node(0, i, j - 1), node(0, i, j), 1 / circuit.row)
        if i:
            join(node(1, i - 1, j), node(1, i, j), 1 / circuit.column)
    for i in range(rows):
        matrix[node(0, i, 0), node(0, i, 0)] += 1 / circuit.driver
        injected[node(0, i, 0)] = drive[i].numpy() / circuit.driver
    for j in range(columns):
        matrix[node(1, rows - 1, j), node(1, rows - 1, j)] += 1 / circuit.sense
    potentials = linalg.splu(matrix.tocsc()).solve(injected)
    return torch.from_numpy(potentials[node(1, rows - 1, 0) :]) / circuit.sense


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("resistance", [1e-6, 0.0])
def test_without_resistance_the_currents_are_the_matrix_product(solver, resistance):
    conductances = cells(2, 16)
    seen = Circuit(resistance, resistance, resistance, resistance, solver).seen(conductances)
    torch.testing.assert_close(seen, conductances.mT, rtol=1e-6, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("zero", ["driver", "sense", "row", "column"])
def test_a_resistance_of_zero_is_the_limit_of_small_ones(solver, zero):
    conductances = cells(1, 8, 6)
    none, little = (Circuit(**{zero: value}, solver=solver).seen(conductances) for value in (0.0, 1e-6))
    torch.testing.assert_close(none, little, rtol=1e-7, atol=0)
    assert not torch.allclose(none, Circuit(solver=solver).seen(conductances), rtol=1e-5, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_cell_is_a_series_of_driver_device_and_sense_amplifier(solver):
    conductance = torch.full((1, 1, 1), ON, dtype=torch.float64)
    current = Circuit(driver=1000, sense=300, solver=solver).currents(conductance, torch.full_like(conductance, 0.1))
    torch.testing.assert_close(current.item(), 0.1 / (1000 + 1 / ON + 300), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_unit_drives_show_gives_the_currents_of_any_input(solver):
    circuit, conductances = Circuit(solver=solver), cells(2, 12, 9)
    drive = (torch.rand(2, 12, 5, generator=torch.Generator().manual_seed(1)) < 0.4).double()
    torch.testing.assert_close(circuit.seen(conductances) @ drive, circuit.currents(conductances, drive), rtol=1e-9, atol=0)


def test_all_current_that_drivers_give_leaves_by_the_sense_amplifiers():
    circuit, conductances = Circuit(driver=1000, sense=500), cells(1, 16)
    drive = (torch.rand(1, 16, 4, generator=torch.Generator().manual_seed(2)) < 0.5).double()
    a, b = circuit.relaxed(conductances, drive)
    given, taken = ((drive - a[:, :, 0]) / circuit.driver).sum(1), (b[:, -1] / circuit.sense).sum(1)
    torch.testing.assert_close(given, taken, rtol=1e-9, atol=0)
    torch.testing.assert_close(b[:, -1] / circuit.sense, Circuit(1000, 500, solver="elimination").currents(conductances, drive))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (7, 12), (12, 5)])
def test_solvers_equal_sparse_lu(solver, rows, columns):
    circuit, conductances = Circuit(driver=1000, sense=200, row=5, column=8, solver=solver), cells(1, rows, columns)
    wanted = by_sparse_lu(circuit, conductances[0], torch.eye(rows, dtype=torch.float64))
    torch.testing.assert_close(circuit.seen(conductances)[0], wanted, rtol=1e-8, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_equal_sparse_lu_for_64_rows(solver):
    circuit, conductances = Circuit(solver=solver), cells(1, 64)
    drive = (torch.rand(1, 64, 3, generator=torch.Generator().manual_seed(3)) < 0.5).double()
    wanted = by_sparse_lu(circuit, conductances[0], drive[0])
    torch.testing.assert_close(circuit.currents(conductances, drive)[0], wanted, rtol=1e-8, atol=0)


def test_tiles_solved_in_parts_are_solved_as_one(monkeypatch):
    conductances = cells(5, 8)
    whole = Circuit().seen(conductances)
    monkeypatch.setattr("methods.nn.crossbar_circuit.AT_ONCE", 2 * 8**3)
    torch.testing.assert_close(Circuit().seen(conductances), whole, rtol=1e-12, atol=0)


def test_relaxation_that_does_not_settle_is_an_error(monkeypatch):
    monkeypatch.setattr("methods.nn.crossbar_circuit.SWEEPS", 2)
    with pytest.raises(RuntimeError, match="use solver='elimination'"):
        Circuit(solver="relaxation").seen(cells(1, 8))
