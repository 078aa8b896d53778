"""The loss of a student that learns a teacher's answers: hard and soft ones.

With logits ``o`` of the student, ``z`` of the teacher, classes ``y`` and a temperature ``tau``::

    L = (1 - share) CE(o, y) + share tau^2 KL(softmax(z / tau) || softmax(o / tau))

Source: "Distilling the Knowledge in a Neural Network" (Hinton, Vinyals, Dean, 2015), section 2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(logits: Tensor, teacher: Tensor, classes: Tensor, tau: float, share: float = 0.5) -> Tensor:
    """Return the mean loss of ``logits [B, K]`` given the ``teacher``'s ``[B, K]`` and ``classes [B]``."""
    soft, wanted = (F.log_softmax(part / tau, 1) for part in (logits, teacher))
    divergence = F.kl_div(soft, wanted, reduction="batchmean", log_target=True)
    return (1 - share) * F.cross_entropy(logits, classes) + share * tau**2 * divergence
