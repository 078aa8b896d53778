"""Batch normalisation at each step."""

import torch
from torch import nn

from methods.nn.step_norm import StepBatchNorm
from methods.nn.stepping import stepping


def test_it_is_torch_batch_norm_called_once_per_step():
    torch.manual_seed(0)
    mine, theirs = StepBatchNorm(4).double(), nn.BatchNorm2d(4).double()
    for training in (True, True, False):
        x = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64) * 2 + 1
        mine.train(training), theirs.train(training)
        torch.testing.assert_close(mine(x), torch.stack([theirs(now) for now in x]))
    torch.testing.assert_close(mine.running_mean, theirs.running_mean)
    torch.testing.assert_close(mine.running_var, theirs.running_var)


def test_steps_have_statistics_of_their_own_in_training_so_single_calls_equal_one():
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64) * torch.tensor([1.0, 5.0, 9.0]).view(3, 1, 1, 1, 1)
    norm = StepBatchNorm(4, scale=0.5).double()
    y = norm(x)
    torch.testing.assert_close(y.transpose(1, 2).flatten(2).std(2, unbiased=False), torch.full((3, 4), 0.5).double(), rtol=1e-4, atol=0)
    with stepping(norm):
        assert torch.equal(torch.cat([norm(x[t : t + 1]) for t in range(3)]), y)
