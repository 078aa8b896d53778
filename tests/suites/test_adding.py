import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.plugin import UsageError
from harness.task import SPLITS
from suites.adding import Adding


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 200))
def test_the_answer_is_the_sum_of_the_two_marked_numbers_one_in_each_half(length):
    data = Adding(options={"length": length}).load("validation")
    numbers, marks = data.inputs.unbind(2)
    assert numbers.min() >= 0 and numbers.max() <= 1
    assert ((marks == 0) | (marks == 1)).all()
    assert (marks[:, : length // 2].sum(1) == 1).all() and (marks[:, length // 2 :].sum(1) == 1).all()
    torch.testing.assert_close((numbers * marks).sum(1, keepdim=True), data.targets)


def test_always_answering_1_has_an_error_of_a_sixth():
    task = Adding()
    data, scorer = task.split("test"), task.scorer()
    scorer.update(torch.ones(len(data), 1), data.targets)
    assert scorer.compute()["mse"] == pytest.approx(1 / 6, rel=0.05)


def test_splits_share_no_sequence_and_are_the_same_every_time():
    first = {split: Adding().split(split).inputs for split in SPLITS}
    again = {split: Adding().split(split).inputs for split in SPLITS}
    rows = [row.numpy().tobytes() for inputs in first.values() for row in inputs]
    assert len(set(rows)) == len(rows)
    assert all(torch.equal(first[split], again[split]) for split in SPLITS)


def test_a_larger_budget_begins_with_the_same_sequences():
    small, large = (Adding(budget).split("train").inputs for budget in ("smoke", "laptop"))
    assert len(large) > len(small)
    assert torch.equal(large[: len(small)], small)


def test_marks_are_spread_over_each_half():
    marks = Adding(options={"length": 10}).load("test").inputs[:, :, 1].sum(0)
    assert (abs(marks - 200) < 50).all()


def test_a_length_of_one_is_refused():
    with pytest.raises(UsageError, match="length"):
        Adding(options={"length": 1})


def test_the_checksum_tells_lengths_apart():
    assert Adding().checksum() == Adding().checksum() != Adding(options={"length": 50}).checksum()
