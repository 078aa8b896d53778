"""Intervals, tests and ranks, against closed forms and scipy."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, ttest_rel

from harness.statistics import Runs, holm, interval, over_items, over_seeds, p_value, ranks, sign_flip


def disagreeing(first, second, agree=100):
    """Answers of which ``first`` are right only in the one, ``second`` only in the other."""
    return [True] * first + [False] * second + [True] * agree, [False] * first + [True] * second + [True] * agree


def once(one, other):
    return over_items(Runs({}, {0: one}), Runs({}, {0: other}))


def convolved(counts, total):
    """P(|T| >= |total|) of the sum of ``counts[k - 1]`` differences k of random sign, for each k: all sums and their chances."""
    chances = {0: Fraction(1)}
    for k, count in enumerate(counts, 1):
        each = {k * (2 * plus - count): Fraction(math.comb(count, plus), 2**count) for plus in range(count + 1)}
        joined = {}
        for (a, p), (b, q) in itertools.product(chances.items(), each.items()):
            joined[a + b] = joined.get(a + b, 0) + p * q
        chances = joined
    return float(sum(p for value, p in chances.items() if abs(value) >= abs(total)))


@pytest.mark.parametrize(("first", "second"), [(1, 9), (60, 30), (5, 5), (0, 3), (700, 610)])
def test_with_one_seed_the_comparison_over_items_is_mcnemars_exact_test(first, second):
    assert once(*disagreeing(first, second)) == pytest.approx(binomtest(first, first + second).pvalue, abs=1e-12)


def test_items_that_both_answer_alike_do_not_count():
    assert once(*disagreeing(1, 9, agree=0)) == once(*disagreeing(1, 9, agree=10_000))
    assert once([True, False], [True, False]) == 1.0


def test_items_must_be_the_same():
    assert once([True] * 3, [True] * 2) is None and once([], []) is None


def test_with_several_seeds_the_comparison_over_items_is_the_permutation_test():
    random = np.random.default_rng(1)
    one, other = random.random((2, 8)) < 0.8, random.random((2, 8)) < 0.4
    difference = (one.astype(float) - other).mean(0)
    reached = [abs(np.dot(signs, difference)) >= abs(difference.sum()) - 1e-9 for signs in itertools.product((-1, 1), repeat=8)]
    found = over_items(Runs({}, dict(enumerate(one))), Runs({}, dict(enumerate(other))))
    assert found == pytest.approx(np.mean(reached), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=4, max_size=4), st.integers(0, 90)), min_size=1, max_size=5))
def test_sums_of_random_signs_have_the_chances_of_their_convolution(cases):
    sizes = [sum(k * count for k, count in enumerate(counts, 1)) for counts, _ in cases]
    totals = [size - 2 * min(less, size) for size, (_, less) in zip(sizes, cases, strict=True)]  # as even or odd as the size
    found = sign_flip(np.array([counts for counts, _ in cases]), np.array(totals))
    assert found == pytest.approx([convolved(counts, total) for (counts, _), total in zip(cases, totals, strict=True)], abs=1e-11)


def test_large_sums_are_taken_for_normal_and_hardly_differ(monkeypatch):
    counts, totals = np.array([[2000, 1500, 1200, 500, 300]] * 4), np.array([100, 200, 300, 400])
    exact = sign_flip(counts, totals)
    monkeypatch.setattr("harness.statistics.EXACT", 1000)
    normal = sign_flip(counts, totals)
    assert normal == pytest.approx(exact, abs=1e-4) and not np.array_equal(normal, exact)


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
    def brute(self, runs, higher=True, alpha=0.05):
        """Ranks by every test of every pair, without leaving any out."""
        means = [np.mean(list(each.figures.values())) for each in runs]
        pairs = [(i, j) for i in range(len(runs)) for j in range(i)]
        corrected = holm([p_value(runs[i], runs[j]) for i, j in pairs])
        better = [0] * len(runs)
        for (i, j), p in zip(pairs, corrected, strict=True):
            if p < alpha:
                better[i if (means[i] < means[j]) == higher else j] += 1
        return [1 + count for count in better]

    @pytest.mark.parametrize("seed", range(4))
    def test_leave_out_only_tests_that_cannot_matter(self, seed):
        random = np.random.default_rng(seed)
        rates = random.uniform(0.3, 0.95, 14)
        answers = [random.random((5, 150)) < np.clip(rate + random.normal(0, 0.02, (5, 1)), 0, 1) for rate in rates]
        runs = [Runs(dict(enumerate(each.mean(1))), dict(enumerate(each))) for each in answers]
        assert ranks(runs) == self.brute(runs) and len(set(ranks(runs))) > 2
        assert ranks(runs, higher=False) == self.brute(runs, higher=False)

    def test_are_the_same_every_time(self):
        runs = self.runs(0.9, 0.87, 0.85, seeds=3)
        assert [p_value(runs[0], other) for other in runs[1:]] == [p_value(runs[0], other) for other in runs[1:]]

    def test_are_missing_for_figures_that_are_not_finite(self):
        assert ranks([Runs({0: math.inf, 1: 1.0, 2: 1.0}, {}), *self.runs(0.9, 0.5, seeds=3)]) == [None, 1, 2]

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


def test_the_bootstrap_interval_is_that_of_scipy():
    random = np.random.default_rng(3)
    for _ in range(5):
        sample = random.exponential(size=random.integers(3, 12))
        options = {"confidence_level": 0.9, "n_resamples": 9999, "method": "BCa", "rng": np.random.default_rng(0)}
        assert interval(list(sample), 0.9) == pytest.approx(bootstrap((sample,), np.mean, **options).confidence_interval, rel=1e-9)
