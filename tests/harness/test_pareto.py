"""Pareto-optimal points against the definition, point by point."""

from hypothesis import given
from hypothesis import strategies as st

from harness.report.pareto import front, optimal

DIRECTIONS = st.sampled_from(["lower", "higher"])


@given(st.data(), st.integers(1, 4))
def test_optimal_is_what_no_other_is_better_than(data, size):
    directions = data.draw(st.lists(DIRECTIONS, min_size=size, max_size=size))
    points = data.draw(st.lists(st.tuples(*[st.integers(0, 3)] * size), max_size=12))

    def beats(one, other):
        pairs = [(a, b) if direction == "lower" else (b, a) for a, b, direction in zip(one, other, directions, strict=True)]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    assert optimal(points, directions) == [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]


def test_a_front_is_that_of_cost_and_quality():
    points = [(1.0, 0.5), (2.0, 0.9), (3.0, 0.9)]
    assert front(points, higher=True) == [0, 1]
    assert front(points, higher=False) == [0]
    assert front(points, higher=True, lower_cost=False) == [2]
