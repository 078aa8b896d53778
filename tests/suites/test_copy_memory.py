import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.task import SPLITS
from suites.copy_memory import SIGNAL, CopyMemory, Recall


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 300))
def test_symbols_are_asked_for_in_their_order_after_the_delay(length):
    task = CopyMemory(options={"length": length})
    data = task.load("validation")
    assert data.inputs.shape == data.targets.shape == (250, length + 20)
    assert torch.equal(data.inputs[:, :10], data.targets[:, -10:])
    assert data.inputs[:, :10].min() == 1 and data.inputs[:, :10].max() == 8
    assert (data.inputs[:, 10 + length - 1] == SIGNAL).all()
    assert (data.inputs == SIGNAL).sum() == 250
    assert (data.inputs[:, 10 : 9 + length] == 0).all() and (data.inputs[:, -10:] == 0).all()
    assert (data.targets[:, :-10] == 0).all()


def test_the_network_gets_symbols_one_hot():
    task = CopyMemory()
    batch = task.gather("test", torch.tensor([0, 7]))
    assert batch.inputs.shape == (2, 60, 10)
    assert torch.equal(batch.inputs.argmax(-1), task.split("test").inputs[[0, 7]].long())
    assert (batch.inputs.sum(-1) == 1).all()


def test_splits_share_no_sequence():
    rows = [tuple(row) for split in SPLITS for row in CopyMemory("paper").split(split).targets[:, -10:].tolist()]
    held_out = {tuple(row) for row in CopyMemory().split("test").targets[:, -10:].tolist()}
    train = {tuple(row) for row in CopyMemory().split("train").targets[:, -10:].tolist()}
    assert not held_out & train
    assert len(set(rows)) > 0.999 * len(rows)  # of 8^10 sequences, few are drawn twice


def test_a_delay_of_32768_steps_is_generated_in_bytes():
    task = CopyMemory(options={"length": 32_768})
    assert task.split("test").inputs.dtype == torch.uint8
    assert task.gather("test", torch.arange(2)).inputs.shape == (2, 32_788, 10)
    assert len(task.budget.backbone.widths) == 8  # 4^8 steps are seen


def test_blanks_do_not_count():
    task = CopyMemory()
    batch = task.gather("test", torch.arange(20))
    answers = torch.nn.functional.one_hot(batch.targets.long(), 9).float()
    answers[:, :-10] = answers[:, :-10].roll(1, -1)  # every blank wrong
    answers[:5, -1] = answers[:5, -1].roll(1, -1)
    scorer = Recall()
    scorer.update(answers, batch.targets)
    assert scorer.compute() == {"accuracy": pytest.approx(195 / 200)}
    assert sum(scorer.correct()) == 195 and len(scorer.correct()) == 200


def test_a_step_of_blanks_has_no_accuracy():
    task = CopyMemory()
    scorer = task.scorer()
    scorer.update(*task.at_step(0, torch.zeros(20, 9), task.split("test").targets[:20]))
    assert math.isnan(scorer.compute()["accuracy"])


def test_logits_that_are_no_numbers_are_wrong():
    scorer = Recall()
    scorer.update(torch.full((1, 2, 9), math.nan), torch.tensor([[1, 0]]))
    assert scorer.correct() == [False]


def test_the_loss_is_the_cross_entropy_over_all_steps():
    task = CopyMemory()
    targets = task.split("test").targets[:3]
    known_blanks = torch.zeros(3, 60, 9)
    known_blanks[:, :-10, 0] = 1000
    known_blanks[:, -10:, 0] = -1000
    assert task.loss(known_blanks, targets).item() == pytest.approx(10 * math.log(8) / 60, rel=1e-4)  # the published baseline
