"""The search over one number."""

import torch

from methods.nn.bayesian_search import maximise


# Card, test 8
def test_the_maximum_of_a_known_function_is_found_in_35_evaluations():
    peak = 0.9731
    found = maximise(lambda p: -abs(p - peak) - 20 * (p - peak) ** 2, 0.95, 1.0)
    assert len(found.evaluations) == 35
    assert abs(found.best - peak) < 5e-3
    assert found.value == max(value for _, value in found.evaluations)
    assert all(0.95 <= p <= 1 for p, _ in found.evaluations)


def test_the_same_seed_finds_the_same_and_gradients_of_the_caller_do_not_matter():
    def wave(p: float) -> float:
        return float(torch.tensor(200 * p).sin())

    one = maximise(wave, 0.95, 1.0, random=3, proposed=3)
    with torch.no_grad():
        other = maximise(wave, 0.95, 1.0, random=3, proposed=3)
    assert one.evaluations == other.evaluations
    assert maximise(wave, 0.95, 1.0, 3, 0, seed=2).evaluations != one.evaluations[:3]
