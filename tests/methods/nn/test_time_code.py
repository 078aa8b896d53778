"""The code of spike times: card, tests 2 and 8, and the lookup against the search."""

from __future__ import annotations

import math

import pytest
import torch

from methods.nn.time_code import TimeCode

DOUBLE = torch.float64
CODES = [TimeCode(24, 4.0), TimeCode(12, 2.0), TimeCode(6, 1.0)]


# Card, test 2
@pytest.mark.parametrize("code", CODES)
def test_phi_is_a_floor_in_the_log_domain(code):
    torch.manual_seed(0)
    u = torch.cat([torch.rand(5000, dtype=DOUBLE) * 1.2, torch.randn(1000, dtype=DOUBLE)])
    phi = code.phi(u)
    last = 2 ** (-(code.levels - 1) / code.tau)
    assert (phi <= u.clamp(min=0)).all()
    assert (phi[u >= 1] == 1).all() and (u >= 1).any()
    assert (phi[u < last] == 0).all()
    between = (u >= last) & (u < 1)
    ratio = phi[between] / u[between]
    assert ratio.max() <= 1 and ratio.min() > 2 ** (-1 / code.tau)
    assert len(phi.unique()) == code.levels + 1


@pytest.mark.parametrize("code", CODES)
def test_spike_times_are_those_of_the_formula_away_from_the_edges(code):
    torch.manual_seed(1)
    u = torch.rand(5000, dtype=DOUBLE) * 1.2
    exact = -code.tau * u.log2()
    inside = (exact - exact.round()).abs() > 1e-9
    wanted = exact.ceil().clamp(0, code.levels).long()
    assert torch.equal(code.times(u)[inside], wanted[inside])


def test_values_of_the_table_are_told_as_themselves_and_their_neighbours_below_are_not():
    code = TimeCode(24, 4.0)
    kernel = code.kernel(torch.empty(0))
    assert torch.equal(code.times(kernel), torch.arange(24))
    assert torch.equal(code.times(torch.nextafter(kernel, torch.zeros(24))), torch.arange(1, 25))


def test_silence_is_no_level():
    code = TimeCode(6, 1.0)
    assert code.phi(torch.tensor([-1.0, 0.0, 0.03])).tolist() == [0, 0, 0]
    assert code.phi(torch.tensor([2.0**-5])) == 2.0**-5


# Card, test 8
@pytest.mark.parametrize("code", CODES)
def test_base_two_and_base_e_are_one_kernel(code):
    t = torch.arange(code.levels, dtype=DOUBLE)
    torch.testing.assert_close(code.kernel(t), torch.exp(-t * math.log(2) / code.tau), atol=1e-15, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16])
@pytest.mark.parametrize(("levels", "tau"), [(24, 4.0), (1, 1 / 6), (7, 0.3), (100, 16.7), (24, 3000.0)])
def test_the_lookup_equals_the_search_to_the_bit(dtype, levels, tau):
    torch.manual_seed(2)
    code = TimeCode(levels, tau)
    kernel = code.kernel(torch.empty(0, dtype=dtype))
    steps = [torch.nextafter(kernel, torch.full_like(kernel, to)) for to in (0.0, 2.0)]
    extremes = torch.tensor([0.0, -0.0, -3.0, 5.0, math.inf, -math.inf], dtype=dtype)
    u = torch.cat([torch.randn(4000).to(dtype), kernel, *steps, extremes])
    assert torch.equal(code.phi(u), code.decode(code.times(u), u))


def test_images_keep_their_layout():
    images = torch.rand(3, 4, 5, 6).contiguous(memory_format=torch.channels_last).unflatten(0, (1, 3))
    code = TimeCode()
    assert code.phi(images).stride() == images.stride()
    assert torch.equal(code.phi(images), code.phi(images.contiguous()))


@pytest.mark.parametrize(("levels", "tau", "message"), [(0, 1.0, "at least one level"), (4, 0.0, "tau above 0"), (500, 1.0, "499 octaves")])
def test_what_is_no_code_is_refused(levels, tau, message):
    with pytest.raises(ValueError, match=message):
        TimeCode(levels, tau)
