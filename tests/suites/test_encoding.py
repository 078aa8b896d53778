import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suites import encoding

INTENSITIES = st.lists(st.integers(0, 255), min_size=1, max_size=20).map(lambda values: torch.tensor(values) / 255)
STEPS = st.integers(1, 12)


@given(INTENSITIES, STEPS)
def test_direct_coding_is_the_input_at_every_step(x, steps):
    sequence = encoding.direct(x, steps)
    assert sequence.shape == (steps, len(x))
    assert all(torch.equal(each, x) for each in sequence)


@given(INTENSITIES, STEPS)
def test_rate_coding_is_silent_at_0_and_fires_always_at_1(x, steps):
    sequence = encoding.rate(x, steps, torch.Generator().manual_seed(0))
    assert set(sequence.unique().tolist()) <= {0.0, 1.0}
    assert not sequence[:, x == 0].any()
    assert sequence[:, x == 1].all()


def test_the_mean_rate_is_the_intensity():
    x = torch.tensor([0.1, 0.5, 0.9]).repeat(100, 1)
    steps = 400
    found = encoding.rate(x, steps, torch.Generator().manual_seed(1)).mean((0, 1))
    for mean, p in zip(found.tolist(), (0.1, 0.5, 0.9), strict=True):
        assert abs(mean - p) < 5 * math.sqrt(p * (1 - p) / (steps * 100))


def test_rate_coding_draws_every_step_anew():
    sequence = encoding.rate(torch.full((1000,), 0.5), 2, torch.Generator().manual_seed(2))
    both = (sequence[0] * sequence[1]).mean().item()  # 1/4 if independent
    assert abs(both - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 1000)


def test_rate_coding_repeats_with_the_seed():
    x = torch.full((50,), 0.5)
    torch.manual_seed(7)
    first = encoding.rate(x, 4)
    torch.manual_seed(7)
    assert torch.equal(first, encoding.rate(x, 4))


@given(INTENSITIES, STEPS)
def test_latency_coding_fires_once_at_the_step_of_the_formula(x, steps):
    sequence = encoding.latency(x, steps)
    for n, value in enumerate(x.tolist()):
        spikes = sequence[:, n].nonzero().flatten().tolist()
        wanted = math.floor(float(np.float32(1) - np.float32(value)) * steps)
        assert spikes == ([wanted] if wanted < steps else [])
        assert (spikes == []) == (value == 0)


@given(INTENSITIES, STEPS)
def test_brighter_inputs_never_fire_later(x, steps):
    order = x.argsort(descending=True)
    assert encoding.first_spike(x[order], steps).diff().ge(0).all()


@given(INTENSITIES, STEPS)
def test_phase_coding_adds_up_to_the_intensity_cut_to_so_many_digits(x, steps):
    sequence = encoding.phase(x, steps)
    wanted = [min(math.floor(value * 2**steps), 2**steps - 1) / 2**steps for value in x.double().tolist()]
    assert sequence.double().sum(0).tolist() == pytest.approx(wanted, abs=1e-7)


@given(INTENSITIES, STEPS)
def test_a_weighted_spike_is_nothing_or_the_weight_of_its_step(x, steps):
    for step, values in enumerate(encoding.phase(x, steps)):
        assert set(values.tolist()) <= {0.0, 2.0 ** -(step + 1)}


@pytest.mark.parametrize("code", [encoding.direct, encoding.rate, encoding.latency, encoding.phase])
def test_time_comes_first_and_the_shape_stays(code):
    assert code(torch.rand(2, 3, 4, 5), 6).shape == (6, 2, 3, 4, 5)
