"""Weights on crossbars: mapping, devices, tiles, reading, and what wires do to the currents."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.nn.crossbar_array import Crossbar
from methods.nn.crossbar_circuit import Circuit
from methods.nn.crossbar_devices import Devices
from methods.nn.crossbar_read import Read, disobedient, effective_weight, on_crossbars
from methods.nn.crossbar_tiles import as_matrices, as_weight, by_tile, count_tiles, tilewise
from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.synapse import Conv2d, DelayLine
from methods.nn.weight_standardisation import StandardisedConv2d

NO_WIRES = Circuit(0, 0, 0, 0)
DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=DOUBLE).to(dtype)


# Devices -----------------------------------------------------------------------------------------------------------------


def test_mapping_to_pairs_and_back_returns_the_weight():
    weight, devices = random(6, 5), Devices()
    conductances, scale = devices.conductances(weight)
    assert conductances.min() >= devices.off and conductances.max() <= devices.on * (1 + 1e-12)
    torch.testing.assert_close(devices.weights(conductances, scale), weight, rtol=0, atol=1e-14)


def test_a_layer_of_zeros_stays_zero():
    devices = Devices()
    assert not devices.weights(*devices.conductances(torch.zeros(3, 2))).any()


def test_levels_are_even_from_off_to_on():
    devices = Devices(levels=4)
    conductances, _ = devices.conductances(torch.linspace(-1, 1, 101))
    expected = torch.linspace(devices.off, devices.on, 4, dtype=DOUBLE)
    torch.testing.assert_close(conductances.unique(), expected, rtol=1e-12, atol=0)


def test_variation_is_relative_gaussian_and_no_device_conducts_less_than_a_tenth_of_off():
    devices = Devices(variation=0.1)
    factors = devices.programmed(torch.full((50_000,), devices.on, dtype=DOUBLE), seeded()) / devices.on
    assert factors.mean() == pytest.approx(1, abs=0.002)
    assert factors.std() == pytest.approx(0.1, rel=0.02)
    wild = Devices(variation=3.0)
    assert wild.programmed(torch.full((1000,), wild.off, dtype=DOUBLE), seeded()).min() == pytest.approx(0.1 * wild.off)


def test_the_same_devices_vary_whatever_the_deviation():
    conductances = torch.full((20,), 3e-5, dtype=DOUBLE)
    small, large = (Devices(variation=v).programmed(conductances, seeded()) - conductances for v in (0.01, 0.02))
    torch.testing.assert_close(2 * small, large, rtol=1e-9, atol=0)


def test_stuck_devices_are_at_on_or_off_in_their_shares():
    devices = Devices(stuck_on=0.1, stuck_off=0.2)
    found = devices.programmed(torch.full((50_000,), 3e-5, dtype=DOUBLE), seeded())
    assert (found == devices.on).double().mean() == pytest.approx(0.1, abs=0.01)
    assert (found == devices.off).double().mean() == pytest.approx(0.2, abs=0.01)
    assert (found == 3e-5).double().mean() == pytest.approx(0.7, abs=0.01)


# Tiles -------------------------------------------------------------------------------------------------------------------


def test_tiles_cover_a_matrix_once_and_keep_its_places():
    cells, shapes = random(2, 3, 10, 7), []

    def note(tiles: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(tiles.shape))
        return tiles - tiles.mean((1, 2), keepdim=True)

    found = tilewise(cells, 4, note)
    assert sorted(shapes) == [(6, 2, 3), (6, 2, 4), (12, 4, 3), (12, 4, 4)]
    assert sum(n for n, _, _ in shapes) == count_tiles(cells, 4)
    for rows, columns in ((slice(0, 4), slice(0, 4)), (slice(4, 8), slice(4, 7)), (slice(8, 10), slice(0, 4))):
        tile = cells[1, 2, rows, columns]
        torch.testing.assert_close(found[1, 2, rows, columns], tile - tile.mean())


def test_rows_by_tile_are_padded_with_zeros():
    rows = torch.arange(1.0, 11.0).view(5, 2)
    assert by_tile(rows, 4).tolist() == [[[1, 2], [3, 4], [5, 6], [7, 8]], [[9, 10], [0, 0], [0, 0], [0, 0]]]


@pytest.mark.parametrize("groups", [1, 2])
def test_matrices_of_a_convolution_multiply_what_unfold_gives(groups):
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=groups, bias=False).double()
    x = random(2, 4, 5, 5)
    rows = nn.functional.unfold(x, 3, padding=1).unflatten(1, (groups, -1))
    product = (as_matrices(conv.weight, groups).mT @ rows).flatten(1, 2).unflatten(-1, (5, 5))
    torch.testing.assert_close(product, conv(x))
    assert torch.equal(as_weight(as_matrices(conv.weight, groups), conv.weight), conv.weight)


# Crossbars ---------------------------------------------------------------------------------------------------------------


def test_without_any_effect_the_weight_is_bypassed_bit_by_bit():
    weight = random(5, 4, dtype=torch.float32)
    held = Crossbar(4, Devices(), NO_WIRES).hold(weight, 1, seeded())
    assert held.weight is weight
    assert held.gain == pytest.approx(1)
    assert held.non_ideality(seeded()) == (0.0, 0.0)


def test_the_effective_weight_is_the_difference_of_what_each_tile_shows():
    weight, crossbar = random(3, 10), Crossbar(4)
    held = crossbar.hold(weight, 1, seeded())
    conductances, scale = crossbar.devices.conductances(weight.T)
    tile = crossbar.circuit.seen(conductances[:, 4:8]).mT
    expected = (tile[0] - tile[1]) * scale / (crossbar.devices.on - crossbar.devices.off)
    torch.testing.assert_close(held.weight[:, 4:8].T, expected)
    assert held.tiles == 2 * 3


def test_wires_make_weights_smaller_and_the_gain_brings_them_closest():
    held = Crossbar(16).hold(random(16, 16), 1, seeded())
    assert held.weight.norm() < held.ideal.norm()
    at, near = ((factor * held.weight - held.ideal).norm() for factor in (held.gain, held.gain * 1.01))
    assert at < near
    assert at < (held.gain * 0.99 * held.weight - held.ideal).norm()


def test_programmings_differ_and_one_stays_as_it_is():
    crossbar = Crossbar(8, Devices(variation=0.1), NO_WIRES)
    first, again, other = (crossbar.hold(random(8, 8), 1, seeded(seed)).weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def non_ideality(size: int, on: float, off: float, resistance: float, column: float = 5.0) -> tuple[float, float]:
    """Of random conductances, as the card's table has them: weights that use the whole range of the plus devices."""
    cells = off + (on - off) * torch.rand(8, size, size, generator=seeded(size), dtype=DOUBLE)
    seen = Circuit(resistance, resistance, 5.0, column).seen(cells).mT
    factor = ((cells.sum(1) - seen.sum(1)) / cells.sum(1)).mean()
    drive = (torch.rand(8, 32, size, generator=seeded(1), dtype=DOUBLE) < 0.2).double()
    wanted, found = drive @ cells, drive @ seen
    alpha = (wanted * found).sum() / (found * found).sum()
    return factor.item(), ((alpha * found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(
    ("devices", "resistance", "size", "factor", "residual"),
    [
        ((20e3, 200e3), 100, 16, 0.104, 0.009),
        ((20e3, 200e3), 100, 64, 0.414, 0.064),
        ((20e3, 200e3), 1000, 32, 0.654, 0.054),
        ((100e3, 600e3), 100, 32, 0.055, 0.005),
        ((100e3, 600e3), 1000, 64, 0.451, 0.021),
        ((300e3, 1.8e6), 100, 64, 0.048, 0.006),
    ],
)
def test_non_ideality_of_random_tiles_is_that_of_the_cards_table(devices, resistance, size, factor, residual):
    found = non_ideality(size, 1 / devices[0], 1 / devices[1], resistance)
    assert found[0] == pytest.approx(factor, rel=0.06)
    assert found[1] == pytest.approx(residual, rel=0.2, abs=0.001)


def test_non_ideality_grows_with_the_size_and_falls_with_the_resistance_of_devices():
    by_size = [non_ideality(size, 1 / 20e3, 1 / 200e3, 1000, 10)[0] for size in (16, 32, 64)]
    by_device = [non_ideality(32, 1 / (k * 20e3), 1 / (k * 200e3), 1000, 10)[0] for k in (1, 5, 15)]
    assert 0 < by_size[0] < by_size[1] < by_size[2]
    assert by_device[0] > by_device[1] > by_device[2] > 0


def test_non_ideality_of_a_held_weight_is_that_of_its_two_arrays():
    crossbar = Crossbar(8, circuit=Circuit(1000, 1000))
    held = crossbar.hold(random(8, 8), 1, seeded())
    cells = crossbar.devices.conductances(held.ideal.T)[0]
    seen = crossbar.circuit.seen(cells).mT
    assert held.non_ideality(seeded())[0] == pytest.approx(((cells.sum(1) - seen.sum(1)) / cells.sum(1)).mean().item(), rel=1e-9)


def test_noise_of_a_read_is_near_that_of_the_circuit_solved_anew():
    crossbar = Crossbar(16, read_noise=0.1)
    held = crossbar.hold(random(16, 16), 1, seeded())
    fast = held.at_a_read(seeded(3))
    noisy = crossbar.devices.varied(held.cells.programmed, 0.1, seeded(3))
    exact = crossbar.devices.weights(crossbar.seen(noisy), held.cells.scale)
    assert (fast - exact).norm() < 0.05 * (exact - as_matrices(held.weight)).norm()
    assert not torch.equal(fast, held.at_a_read(seeded(4)))


def test_potential_of_a_neuron_that_never_fires_is_off_by_the_sum_of_spikes_times_error():
    weight, spikes = random(6, 10) / 10, (torch.rand(40, 3, 10, generator=seeded(1)) < 0.3).double()
    error = Crossbar(16, Devices(variation=0.1), NO_WIRES).hold(weight, 1, seeded()).weight - weight
    neuron = LIF(leak=1.0, threshold=1e9, reset="none")

    def course(used: torch.Tensor) -> torch.Tensor:
        with stepping(neuron):
            return torch.stack([neuron.carried()[0] for now in spikes if neuron(now[None] @ used.T) is not None])

    potentials = [course(weight), course(weight + error)]
    torch.testing.assert_close(potentials[1] - potentials[0], (spikes @ error.T).cumsum(0), rtol=1e-9, atol=1e-12)


def test_after_forty_steps_an_error_that_stays_is_twice_that_of_noise_at_every_read():
    weight, spikes = random(16, 32, seed=2), (torch.rand(40, 8, 32, generator=seeded(1)) < 0.3).double()
    frozen = Crossbar(32, Devices(variation=0.1), NO_WIRES).hold(weight, 1, seeded()).weight
    held = Crossbar(32, Devices(), NO_WIRES, read_noise=0.1).hold(weight, 1, seeded())
    generator = seeded(5)
    stays = (spikes @ (frozen - weight).T).sum(0)
    redrawn = sum(now @ (held.at_a_read(generator) - weight.T) for now in spikes)
    assert stays.square().mean().sqrt() > 2 * redrawn.square().mean().sqrt()


# Reading -----------------------------------------------------------------------------------------------------------------


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def parametrised() -> nn.Module:
    linear = nn.Linear(7, 5)
    parametrize.register_parametrization(linear, "weight", Doubled())
    return linear


SYNAPSES = {
    "linear": (lambda: nn.Linear(7, 5), (3, 2, 7)),
    "vectors": (lambda: nn.Linear(7, 5), (3, 7)),
    "parametrised": (parametrised, (3, 2, 7)),
    "convolution": (lambda: Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (3, 2, 4, 6, 5)),
    "standardised": (lambda: StandardisedConv2d(4, 6, 3), (3, 2, 4, 6, 5)),
    "over time": (lambda: DelayLine(4, 6, 3, 2), (7, 2, 4)),
    "merged": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (3, 4, 5, 5)),
}

MADE_WITH = {"parametrised": lambda: nn.Linear(7, 5), "standardised": lambda: Conv2d(4, 6, 3, padding=1)}  # weights as stored


def held_in(made: nn.Module, **settings) -> tuple[nn.Module, object]:
    synapse = made.conv if isinstance(made, DelayLine) else made
    crossbar = Crossbar(8, **{"devices": Devices(variation=0.2), **settings})
    return synapse, crossbar.hold(effective_weight(synapse), getattr(synapse, "groups", 1), seeded())


@pytest.mark.parametrize("name", SYNAPSES)
def test_a_synapse_reads_from_crossbars_and_is_as_before_afterwards(name):
    make, shape = SYNAPSES[name]
    torch.manual_seed(0)
    made, x = make().double(), random(*shape)
    synapse, held = held_in(made)
    kind, state, before = type(synapse), {k: v.clone() for k, v in made.state_dict().items()}, made(x)
    read = Read(held)
    with torch.no_grad(), on_crossbars({synapse: read}):
        during = made(x)
    assert type(synapse) is kind
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    assert torch.equal(made(x), before)
    plain = MADE_WITH.get(name, make)().double()  # of the same shape, with that weight for good
    target = plain.conv if isinstance(plain, DelayLine) else plain
    with torch.no_grad():
        target.weight.copy_(held.weight)
        target.bias.copy_(synapse.bias)
        assert not torch.allclose(during, before)
        torch.testing.assert_close(during, plain(x))


@pytest.mark.parametrize("name", SYNAPSES)
def test_read_by_read_equals_the_fixed_product_where_nothing_is_drawn(name):
    make, shape = SYNAPSES[name]
    torch.manual_seed(0)
    made, x = make().double(), random(*shape)
    synapse, held = held_in(made)
    with torch.no_grad():
        with on_crossbars({synapse: Read(held, gain=1.5)}):
            fixed = made(x)
        fine = Read(held, gain=1.5, adc_bits=40)
        fine.calibrating = True
        with on_crossbars({synapse: fine}):
            made(x)
            fine.calibrating = False
            each = made(x)
    torch.testing.assert_close(each, fixed, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["linear", "convolution", "over time"])
def test_noise_is_redrawn_at_every_step_and_shared_by_the_batch(name):
    make, shape = SYNAPSES[name]
    torch.manual_seed(0)
    made = make().double()
    x = random(1, 1, *shape[2:]).expand(shape)
    synapse, held = held_in(made, devices=Devices(), read_noise=0.1)
    with torch.no_grad(), on_crossbars({synapse: Read(held, generator=seeded())}):
        y = made(x)
    torch.testing.assert_close(y[:, 0], y[:, 1])
    last = y[-2:]  # of a delay line, its past is full there
    assert not torch.allclose(last[0], last[1])


def test_an_adc_rounds_the_current_of_each_tile():
    linear = nn.Linear(10, 3, bias=False).double()
    held = Crossbar(4, Devices(levels=64), NO_WIRES).hold(linear.weight.detach(), 1, seeded())
    read, x = Read(held, adc_bits=3), random(5, 2, 10)
    read.calibrating = True
    read.currents(linear, x)
    read.calibrating = False
    parts = torch.stack([x[..., k : k + 4] @ held.weight[:, k : k + 4].T for k in (0, 4, 8)])
    step = parts.abs().max() / 3
    torch.testing.assert_close(read.currents(linear, x), ((parts / step).round().clamp(-3, 3) * step).sum(0))


class Secretive(nn.Linear):
    """Computes with another weight than it shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.sign(), self.bias)


class Stubborn(nn.Linear):
    """Shows its weight but does not ask itself for it."""

    @property
    def effective_weight(self) -> torch.Tensor:
        return 2 * self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, 2 * self.weight, self.bias)


@torch.no_grad()
def test_synapses_that_compute_with_another_weight_than_they_show_are_found():
    net = nn.Sequential(nn.Linear(4, 4), Secretive(4, 4), Stubborn(4, 4), StandardisedConv2d(1, 2, 3))
    synapses = dict(net.named_modules())
    del synapses[""]

    def run() -> None:
        net[3](net[:3](torch.rand(2, 1, 1, 4, 4)))

    assert disobedient(synapses, run) == ["1", "2"]
    assert [type(module) for module in net] == [nn.Linear, Secretive, Stubborn, StandardisedConv2d]
