"""A read-out of voters: ``P`` per class, spiking or not, whose mean is the answer.

For features ``x[t]``, with voter p of class k at position ``k P + p`` of a layer::

    s[t] = neuron(W x[t] + c)                     [T, B, classes * P]; without neurons s = W x + c, and c may be left out
    y[t, k] = sum_p a[k, p] s[t, k P + p]         a = 1/P, or learnt: softmax over the votes of a class
    y[t] = b[t] y[t]                              b = 1, or learnt: T softmax over the steps, so that its mean over time is 1

The mean over time of ``y`` is the answer. Equal weights of spikes are those of the official demos of STL-SNN (Sun et al., IEEE TCDS 2023)
and SCTFA (Cai et al., IEEE TNNLS 2023). The exact definition of STL-SNN's joint decision framework was not found: learnt weights are ours,
and not to be quoted as it. Without neurons ("boosting" of S-ResNet, Vicente-Sola et al., 2022) equal votes are one linear map: they add no
functions, but change where weights start and how fast they learn (with SGD each vote gets ``1/P`` of the gradient of a single map).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.stepping import Stateful


class Votes(Stateful):
    """Votes ``[T, B, classes]`` of features ``[T, B, F]``. ``steps``: T, needed where the steps have learnt weights."""

    def __init__(
        self,
        features: int,
        classes: int,
        votes: int,
        neuron: nn.Module | None = None,
        bias: bool = False,
        learnt_votes: bool = False,
        learnt_steps: bool = False,
        steps: int = 1,
    ) -> None:
        """Make ``votes`` voters per class; raise ValueError for less than one."""
        super().__init__()
        if votes < 1:
            raise ValueError(f"{votes} votes per class are not possible; allowed: 1 and more")
        self.classes, self.votes, self.neuron = classes, votes, neuron or nn.Identity()
        self.synapse = nn.Linear(features, classes * votes, bias=bias)
        self.vote_logits = nn.Parameter(torch.zeros(classes, votes)) if learnt_votes else None
        self.step_logits = nn.Parameter(torch.zeros(steps)) if learnt_steps else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the votes; raise ValueError for more steps than have weights."""
        spikes = self.neuron(self.synapse(x)).unflatten(2, (self.classes, self.votes))
        decided = spikes.mean(3) if self.vote_logits is None else (spikes * self.vote_logits.softmax(1)).sum(3)
        return decided if self.step_logits is None else decided * self._weights(self.step_logits, len(x))[:, None, None]

    def _weights(self, logits: Tensor, steps: int) -> Tensor:
        state = self.carried()
        start = int(state[0]) if state else 0
        stop = start + steps
        if stop > len(logits):
            raise ValueError(f"votes are weighted for {len(logits)} time steps, {stop} were given")
        self.carry(torch.tensor(stop))
        return (logits.softmax(0) * len(logits))[start:stop]

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"classes={self.classes}, votes={self.votes}"
