import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.task import SPLITS
from suites import listops
from suites.listops import TOKENS, ListOps, TooLongError, draw, median, sequences
from suites.receptive_field import GROWTH


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(listops, "SIZES", {"test": 60, "validation": 50, "train": 100})


def words(tokens):
    return [TOKENS[token] for token in tokens if token]


def value_of(text):
    """The value of a list of operations, by Python's own evaluation of an expression."""
    names = {"[MIN": "min([", "[MAX": "max([", "[MED": "MED([", "[SM": "SM(["}
    source = "".join(names.get(word) or ("])," if word == "]" else word + ",") for word in text)
    (value,) = eval(source, {"MED": lambda v: int(statistics.median(v)), "SM": lambda v: sum(v) % 10, "min": min, "max": max})
    return value


def depth_and_arguments(text):
    open_lists, deepest, most = [], 0, []
    for word in text:
        if word == "]":
            most.append(open_lists.pop())
            continue
        if open_lists:
            open_lists[-1] += 1
        if word.startswith("["):
            open_lists.append(0)
            deepest = max(deepest, len(open_lists))
    return deepest, most


def test_values_are_those_of_the_expressions():
    found = sequences(20, 120, 300)
    for tokens, value in zip(found["tokens"], found["values"], strict=True):
        assert value_of(words(tokens)) == value


def test_expressions_keep_to_the_grammar():
    deepest, most = zip(*(depth_and_arguments(words(tokens)) for tokens in sequences(50, 400, 200)["tokens"]), strict=True)
    arguments = [count for each in most for count in each]
    assert max(deepest) <= 9  # lists; digits are one deeper
    assert min(arguments) == 2 and max(arguments) == 10


def test_an_argument_is_a_list_with_probability_a_quarter():
    random = listops.numbers(listops.stream("test"))
    lists = tokens = 0
    for _ in range(40_000):
        try:
            found, _ = draw(random, 100)
        except TooLongError:
            lists += 1
            continue
        lists += TOKENS[found[0]].startswith("[")
        tokens += 1
    assert lists / 40_000 == pytest.approx(0.25, abs=0.01)


def test_lengths_are_in_the_range_and_padding_comes_last():
    tokens = sequences(50, 200, 200)["tokens"]
    lengths = (tokens > 0).sum(1)
    assert lengths.min() >= 50 and lengths.max() <= 200
    assert all((row[:length] > 0).all() for row, length in zip(tokens, lengths, strict=True))


@given(st.lists(st.integers(0, 9), min_size=2, max_size=10))
def test_the_median_is_rounded_down(values):
    assert median(values) == int(np.median(values))


def test_splits_are_different_sequences_and_the_same_every_time(few):
    task = ListOps()
    first = {split: task.split(split) for split in SPLITS}
    rows = [row.numpy().tobytes() for data in first.values() for row in data.inputs]
    assert len(set(rows)) == len(rows)
    again = sequences(50, 200, 50)
    assert np.array_equal(first["test"].inputs[:50], again["tokens"])


def test_training_samples_do_not_decide_what_is_tested(few):
    few, more = ListOps(), ListOps()
    few.budget = replace(few.budget, train_samples=10)
    more.budget = replace(more.budget, train_samples=20)
    assert torch.equal(few.split("validation").inputs, more.split("validation").inputs)
    assert torch.equal(few.split("train").inputs, more.split("train").inputs[:10])


def test_the_network_gets_tokens_one_hot_and_padding_as_nothing():
    task = ListOps()
    tokens = torch.tensor([[11, 3, 15, 0]], dtype=torch.uint8)
    prepared = task.prepare(tokens)
    assert prepared.sum(-1).tolist() == [[1, 1, 1, 0]]
    assert prepared[0, :3].argmax(-1).tolist() == [11, 3, 15]


def test_the_paper_budget_has_the_lengths_of_long_range_arena():
    task = ListOps("paper")
    assert task.steps == 2000
    assert GROWTH ** len(task.budget.backbone.widths) >= 2000
    assert ListOps().steps == 200
