"""Batch normalisation that takes its statistics anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.nn.bntt import BatchNormThroughTime
from methods.nn.norm import BatchNorm
from methods.nn.norm_refit import normalisations, refitted
from methods.nn.step_norm import StepBatchNorm
from methods.nn.stepping import stepping


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 + k + (1 + k) * torch.randn(4, 16, 2, 3, 3, generator=generator) for k in range(3)]


def mean_over(parts: list[torch.Tensor], dims: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([x.mean(dims) for x in parts]).mean(0), torch.stack([x.var(dims) for x in parts]).mean(0)


@pytest.mark.parametrize("singly", [False, True])
def test_statistics_are_the_averages_over_batches_and_return_afterwards(singly):
    norm, data = BatchNorm(2).eval(), batches()
    calls = [x[t : t + 1] for x in data for t in range(4)] if singly else data
    with refitted(norm, lambda: [norm(x) for x in calls]):
        mean, var = mean_over(calls, (0, 1, 3, 4))
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)
        assert not norm.training
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all() and norm.momentum == 0.1


@pytest.mark.parametrize("singly", [False, True])
def test_statistics_of_each_time_step_are_averages_over_batches(singly):
    norm, data = BatchNormThroughTime(2, steps=4).eval(), batches()

    def run() -> None:
        for x in data:
            with stepping(norm):
                for part in x.split(1 if singly else 4):
                    norm(part)

    with refitted(norm, run):
        mean, var = mean_over(data, (1, 3, 4))
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)


def test_statistics_taken_step_by_step_give_every_batch_its_share():
    norm = StepBatchNorm(2).eval()
    data = [torch.full((4, 3, 2, 2, 2), float(level)) for level in (1, 2, 6)]
    with refitted(norm, lambda: [norm(x) for x in data]):
        torch.testing.assert_close(norm.running_mean, torch.full((2,), 3.0))


def test_counters_return_too_and_other_modules_stay_in_eval_mode():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5)).eval()
    x = torch.rand(8, 2, 3, 3)
    seen = []
    with refitted(net, lambda: seen.append((net[0].training, net[1].training, net(x)))):
        pass
    assert seen[0][:2] == (True, False)
    assert net[0].num_batches_tracked == 0
    assert normalisations(net) == [net[0]]


def test_statistics_return_when_the_run_fails():
    norm = BatchNorm(2).eval()

    def fail() -> None:
        norm(torch.rand(2, 4, 2))
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"), refitted(norm, fail):
        pass
    assert norm.running_mean.eq(0).all() and not norm.training
