"""The loss of a student and its teacher."""

import pytest
import torch

from methods.nn.distillation import distillation_loss


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_loss_is_cross_entropy_and_divergence_in_their_shares(share):
    logits, teacher = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 3, 2, 2])
    p, q = (teacher / 4).softmax(1), (logits / 4).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    cross = -logits.log_softmax(1)[range(4), classes].mean()
    torch.testing.assert_close(distillation_loss(logits, teacher, classes, 4.0, share), (1 - share) * cross + share * 16 * divergence)


def test_a_student_that_equals_its_teacher_has_no_divergence():
    teacher = torch.randn(3, 5, dtype=torch.float64)
    assert distillation_loss(teacher, teacher, torch.zeros(3, dtype=torch.long), 4.0, 1.0).abs() < 1e-12
