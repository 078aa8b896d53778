"""The squared error of answers to one-hot classes, which papers that read out firing rates train on."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def one_hot_error(answers: Tensor, classes: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean over samples and classes of the squared error of ``answers [B, K]`` to ``classes [B]``, as 0 and 1.

    With ``smoothing`` e the wanted answers are ``e / K`` and ``1 - e + e / K``.
    """
    count = answers.shape[-1]
    return F.mse_loss(answers, F.one_hot(classes, count).to(answers.dtype) * (1 - smoothing) + smoothing / count)
