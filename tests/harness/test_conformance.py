from harness.checks import CHECKS
from harness.conformance import MethodConformance


class TestAnnKeepsTheContract(MethodConformance):
    method = "ann"


def test_the_class_runs_every_check():
    (mark,) = MethodConformance.test_contract.pytestmark
    assert mark.args[1] is CHECKS
