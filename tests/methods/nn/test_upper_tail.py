"""Quantiles near the top from a stream."""

import pytest
import torch

from methods.nn.upper_tail import UpperTail


@pytest.mark.parametrize("q", [0.9, 0.95, 0.977, 0.999, 1.0])
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantiles_are_those_of_all_values_together(q, per_channel):
    torch.manual_seed(0)
    values = torch.randn(1, 30, 3, 4, 5).relu()
    tail = UpperTail(0.9, 600 if per_channel else 1800, per_channel)
    for part in values.split(7, 1):
        tail.add(part)
    rows = values.transpose(0, 2).flatten(1) if per_channel else values.view(1, -1)
    wanted = rows.quantile(q, dim=1)
    torch.testing.assert_close(tail.quantile(q), wanted if per_channel else wanted[0])


def test_only_the_upper_tail_is_kept():
    tail = UpperTail(0.99, 10_000)
    tail.add(torch.rand(1, 1, 10_000))
    assert tail._largest.numel() <= 103
    with pytest.raises(ValueError, match=r"quantile 0.98 given; a quantile from 0.99 to 1"):
        tail.quantile(0.98)
    with pytest.raises(ValueError, match="no values given"):
        UpperTail(0.9, 10).quantile(1.0)
