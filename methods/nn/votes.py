"""Boosting: several linear votes per class, averaged.

A linear map followed by an average is one linear map, so votes add no functions; they change where weights start and how fast they learn
(with SGD each vote gets a ``1/votes`` part of the gradient that a single map would get).
Source: official code of "Keys to Accurate Feature Extraction Using Residual Spiking Neural Networks" (Vicente-Sola et al., 2022).
"""

from __future__ import annotations

from torch import Tensor, nn


class Votes(nn.Module):
    """``[T, B, F] -> [T, B, classes]``: means of ``votes`` neighbouring outputs of a linear map without bias."""

    def __init__(self, features: int, classes: int, votes: int = 10) -> None:
        """Make the linear map."""
        super().__init__()
        self.votes = votes
        self.linear = nn.Linear(features, classes * votes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean vote for every class."""
        return self.linear(x).unflatten(-1, (-1, self.votes)).mean(-1)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"votes={self.votes}"
