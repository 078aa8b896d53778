"""Intervals, tests and ranks, against closed forms and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from harness.statistics import FLIPS, Runs, holm, interval, mcnemar, over_items, over_seeds, p_value, ranks


def disagreeing(first, second, agree=100):
    """Answers of which ``first`` are right only in the one, ``second`` only in the other."""
    return [True] * first + [False] * second + [True] * agree, [False] * first + [True] * second + [True] * agree


def test_mcnemar_is_the_binomial_test_for_few_disagreements():
    expected = 2 * sum(math.comb(10, k) for k in range(2)) / 2**10  # 1 against 9
    assert mcnemar(*disagreeing(1, 9)) == pytest.approx(expected)


def test_mcnemar_is_chi_squared_for_many():
    statistic = (abs(60 - 30) - 1) ** 2 / 90
    assert mcnemar(*disagreeing(60, 30)) == pytest.approx(math.erfc(math.sqrt(statistic / 2)))


def test_mcnemar_looks_at_disagreements_only():
    assert mcnemar(*disagreeing(1, 9, agree=0)) == mcnemar(*disagreeing(1, 9, agree=10_000))
    assert mcnemar([True, False], [True, False]) == 1.0


def test_items_must_be_the_same():
    with pytest.raises(ValueError, match="3 items cannot be paired with 2"):
        mcnemar([True] * 3, [True] * 2)


def test_with_several_seeds_the_comparison_over_items_is_the_permutation_test():
    random = np.random.default_rng(1)
    one, other = random.random((2, 8)) < 0.8, random.random((2, 8)) < 0.4
    difference = (one.astype(float) - other).mean(0)
    reached = [abs(np.dot(signs, difference)) >= abs(difference.sum()) - 1e-9 for signs in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(reached)
    found = over_items(Runs({}, dict(enumerate(one))), Runs({}, dict(enumerate(other))))
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / FLIPS) + 1e-3)


def test_seeds_are_paired():
    one, other = {0: 0.9, 1: 0.8, 2: 0.85}, {2: 0.84, 0: 0.88, 1: 0.79, 7: 0.1}
    expected = ttest_rel([0.9, 0.8, 0.85], [0.88, 0.79, 0.84]).pvalue
    assert over_seeds(Runs(one, {}), Runs(other, {})) == pytest.approx(expected)


def test_two_seeds_are_too_few_and_equal_differences_are_certain():
    assert over_seeds(Runs({0: 1, 1: 2}, {}), Runs({0: 3, 1: 4}, {})) is None
    assert over_seeds(Runs({0: 1, 1: 2, 2: 3}, {}), Runs({0: 2, 1: 3, 2: 4}, {})) == 0.0
    assert over_seeds(Runs({0: 1, 1: 2, 2: 3}, {}), Runs({0: 1, 1: 2, 2: 3}, {})) == 1.0


def test_the_larger_p_value_decides():
    bits = dict.fromkeys(range(3), disagreeing(1, 9)[0]), dict.fromkeys(range(3), disagreeing(1, 9)[1])
    one, other = Runs({0: 0.9, 1: 0.9, 2: 0.91}, bits[0]), Runs({0: 0.95, 1: 0.97, 2: 0.96}, bits[1])
    assert p_value(one, other) == max(over_items(one, other), over_seeds(one, other))
    assert p_value(Runs({0: 1.0}, {}), Runs({0: 2.0}, {})) is None


def test_holm_is_as_in_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(values):
    corrected = holm(values)
    assert all(c >= v or c == 1.0 for c, v in zip(corrected, values, strict=True)) and all(c <= 1 for c in corrected)
    order = sorted(range(len(values)), key=lambda i: values[i])
    assert [corrected[i] for i in order] == sorted(corrected)


def test_the_bootstrap_interval_holds_the_mean_and_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        sample = random.normal(5, 1, 20).tolist()
        low, high = interval(sample, 0.9)
        assert low < np.mean(sample) < high
        hits += low < 5 < high
    assert hits >= 46  # 54 expected, standard deviation 2.3
    assert interval([1.0, 2.0]) is None and interval([2.0] * 3) == (2.0, 2.0)


class TestRanks:
    def runs(self, *rates, seeds=1, items=400):
        random = np.random.default_rng(0)
        found = []
        for rate in rates:
            correct = {seed: (random.random(items) < rate).tolist() for seed in range(seeds)}
            found.append(Runs({seed: float(np.mean(bits)) for seed, bits in correct.items()}, correct))
        return found

    def test_are_shared_by_methods_that_cannot_be_told_apart(self):
        assert ranks(self.runs(0.9, 0.9, 0.5)) == [1, 1, 3]

    def test_follow_the_direction_of_the_metric(self):
        assert ranks(self.runs(0.9, 0.5), higher=False) == [2, 1]

    def test_are_missing_where_nothing_can_be_tested(self):
        assert ranks([Runs({0: 0.5}, {}), Runs({0: 0.9}, {})]) == [None, None]
        assert ranks([Runs({}, {}), *self.runs(0.9, 0.5)]) == [None, 1, 2]
        assert ranks(self.runs(0.9)) == [1]

    def test_rarely_differ_between_equal_methods(self):
        alarms = 0
        for trial in range(60):
            random = np.random.default_rng(trial)
            bits = random.random((6, 200)) < 0.9
            alarms += set(ranks([Runs({0: float(b.mean())}, {0: b.tolist()}) for b in bits])) != {1}
        assert alarms <= 6  # at most 3 expected at the 5 % level
