import pytest

from harness.energy import joules


def test_an_accumulate_and_a_multiply_accumulate_cost_what_the_45_nm_table_says():
    assert joules(1e6, 0) == pytest.approx(0.9e-6)
    assert joules(0, 1e6) == pytest.approx((3.7 + 0.9) * 1e-6)
    assert joules(2, 3) == pytest.approx((2 * 0.9 + 3 * 4.6) * 1e-12)
