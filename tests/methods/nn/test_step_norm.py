"""Batch normalisation step by step, against torch's own called once per step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from methods.nn.norm import BatchNorm
from methods.nn.step_norm import StepBatchNorm
from methods.nn.stepping import stepping

T, C = 4, 3


def currents(*inner: int) -> torch.Tensor:
    return 2 + torch.randn(T, 5, C, *inner, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.arange(1, T + 1).view(
        -1, 1, 1, *[1] * len(inner)
    )


@pytest.mark.parametrize("inner", [(), (4, 6)])
def test_it_is_torchs_normalisation_called_once_per_step(inner):
    x = currents(*inner)
    norm, official = StepBatchNorm(C).double(), (nn.BatchNorm2d if inner else nn.BatchNorm1d)(C).double()
    torch.testing.assert_close(norm(x), torch.stack([official(now) for now in x]))
    torch.testing.assert_close(norm.running_mean, official.running_mean)
    torch.testing.assert_close(norm.running_var, official.running_var)


def test_after_one_forward_pass_of_four_steps_the_running_mean_is_a_part_of_the_mean():
    x = currents(4, 6)[:1].repeat(T, 1, 1, 1, 1)
    norm = StepBatchNorm(C).double()
    norm(x)
    torch.testing.assert_close(norm.running_mean, (1 - 0.9**4) * x[0].mean((0, 2, 3)))


def test_an_input_repeated_in_time_is_normalised_once_with_the_same_result():
    x = currents(4, 6)[:1]
    one, other = StepBatchNorm(C).double(), StepBatchNorm(C).double()
    for training in (True, False):
        found = one.train(training)(x.expand(T, *x.shape[1:]))
        torch.testing.assert_close(found, other.train(training)(x.repeat(T, 1, 1, 1, 1)))
        assert found.stride(0) == 0
    torch.testing.assert_close(one.running_mean, other.running_mean)
    torch.testing.assert_close(one.running_var, other.running_var)


def test_statistics_are_those_of_each_step_and_not_of_all_together():
    x = currents(4, 6)
    found = StepBatchNorm(C).double()(x)
    torch.testing.assert_close(found.mean((1, 3, 4)), torch.zeros(T, C, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.var((1, 3, 4), correction=0), torch.ones(T, C, dtype=torch.float64), atol=1e-4, rtol=0)
    assert not torch.allclose(found, BatchNorm(C).double()(x), atol=0.1)


def test_in_eval_mode_steps_one_by_one_are_the_whole_sequence():
    x = currents(4, 6)
    norm = copy.deepcopy(StepBatchNorm(C).double())
    norm(x)
    norm.eval()
    with stepping(norm):
        serial = torch.cat([norm(now) for now in x.split(1)])
    torch.testing.assert_close(serial, norm(x))
