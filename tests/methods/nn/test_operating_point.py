"""The choice of exit thresholds."""

import pytest
import torch

from methods.nn.conditional import Course
from methods.nn.operating_point import NEVER, T_CLS, T_HCD, operating_point


def course(samples=20, seed=0):
    """Return a course of three blocks whose later blocks answer better, and the targets."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    targets = torch.randint(0, 4, (samples,), generator=generator)
    answers = torch.stack([torch.where(draw(samples) < share, targets, (targets + 1) % 4) for share in (0.7, 0.8, 0.9)])
    easy = draw(3, samples) < 0.7
    easy[-1] = False
    return Course(answers, answers, draw(3, samples), easy, draw(3, samples)), targets


def exit_by_hand(found, sample, t_cls, t_hcd):
    for block in range(2):
        leaves = found.confidence[block, sample] >= t_cls and found.hard[block, sample] < t_hcd
        if found.easy[block, sample] and leaves:
            return block
    return 2


def efficiency(exits):
    return 1 / (1 + exits.double().mean().item())


@pytest.mark.parametrize("tolerance", [0.0, 0.005, 0.05, 1.0])
def test_it_is_the_most_efficient_pair_within_the_tolerance(tolerance):
    found, targets = course()
    point = operating_point(found, targets, efficiency, tolerance)
    whole = (found.answers[2] == targets).double().mean().item()
    allowed = []
    for t_cls in T_CLS:
        for t_hcd in T_HCD:
            exits = torch.tensor([exit_by_hand(found, sample, t_cls, t_hcd) for sample in range(20)])
            right = torch.stack([found.answers[left, sample] for sample, left in enumerate(exits.tolist())]) == targets
            if right.double().mean().item() >= whole - tolerance:
                allowed.append(efficiency(exits))
    assert point.held_out_efficiency == max(allowed)
    assert point.held_out_accuracy >= point.held_out_accuracy_no_exit - tolerance
    assert point.held_out_accuracy_no_exit == whole


def test_a_larger_tolerance_never_costs_efficiency():
    found = [operating_point(*course(seed=3), efficiency, tolerance).held_out_efficiency for tolerance in (0, 0.02, 0.1, 1)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_nobody_exits_where_every_exit_is_wrong():
    found, targets = course()
    wrong = torch.stack([(targets + 1) % 4, (targets + 1) % 4, targets])
    point = operating_point(Course(wrong, wrong, found.confidence, found.easy, found.hard), targets, efficiency)
    left = Course(wrong, wrong, found.confidence, found.easy, found.hard).exits(point.t_cls, point.t_hcd)
    assert (left == 2).all()
    assert point.t_cls == NEVER
