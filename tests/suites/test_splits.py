import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.splits import hashed, held_out, interleaved

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@given(st.integers(2, 1000).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))))
def test_held_out_samples_and_the_others_are_disjoint_and_complete(sizes):
    count, last = sizes
    train, validation = held_out(count, last)
    positions = list(range(count))
    assert positions[train] + positions[validation] == positions
    assert len(positions[validation]) == last


@pytest.mark.parametrize("last", [0, 10, 11, -1])
def test_holding_out_nothing_or_everything_is_an_error(last):
    with pytest.raises(ValueError, match="allowed: 1 to 9"):
        held_out(10, last)


@given(LABELS)
def test_interleaving_keeps_every_sample_once(labels):
    assert sorted(interleaved(labels).tolist()) == list(range(len(labels)))


@given(LABELS)
def test_interleaving_keeps_the_order_within_a_class(labels):
    order = interleaved(labels)
    for label in np.unique(labels):
        assert (np.diff(order[labels[order] == label]) > 0).all()


@given(classes=st.integers(1, 6), each=st.integers(1, 10), first=st.integers(1, 60))
def test_of_classes_of_one_size_the_first_samples_hold_all_alike(classes, each, first):
    labels = np.repeat(np.arange(classes), each)
    counts = np.bincount(labels[interleaved(labels)][:first], minlength=classes)
    assert counts.max() - counts.min() <= 1


@given(LABELS)
def test_interleaving_what_is_interleaved_changes_nothing(labels):
    mixed = labels[interleaved(labels)]
    assert interleaved(mixed).tolist() == list(range(len(labels)))


def test_names_go_to_the_part_that_their_hash_says():
    digits = hashlib.sha256(b"cat/0001.png").hexdigest()[:16]
    drawn = int(digits, 16) % 10
    wanted = "train" if drawn < 8 else "validation" if drawn == 8 else "test"
    assert hashed("cat/0001.png", {"train": 8, "validation": 1, "test": 1}) == wanted


def test_shares_are_kept_about():
    parts = [hashed(str(i), {"train": 8, "validation": 1, "test": 1}) for i in range(10_000)]
    assert abs(parts.count("train") / 10_000 - 0.8) < 0.02
    assert abs(parts.count("validation") / 10_000 - 0.1) < 0.015


def test_another_process_with_another_hash_seed_draws_the_same():
    code = "from suites.splits import hashed; print([hashed(str(i), {'a': 2, 'b': 1}) for i in range(50)])"
    here = [hashed(str(i), {"a": 2, "b": 1}) for i in range(50)]
    for seed in ("1", "2"):
        found = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert found.stdout.strip() == str(here)
