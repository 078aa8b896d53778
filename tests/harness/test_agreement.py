"""Gradient agreement against what is known in closed form."""

import copy
import math

import pytest
import torch

from harness.meters.agreement import agreement, compare
from harness.registry import Registries


def test_cosine_and_ratio_are_those_of_the_angle_and_the_lengths():
    found = compare("w", torch.tensor([3.0, 4.0]), torch.tensor([10.0, 0.0]))
    assert found.cosine == pytest.approx(0.6) and found.ratio == pytest.approx(0.5)


def test_without_a_gradient_there_is_no_angle():
    assert compare("w", None, torch.ones(2)).cosine is None and compare("w", None, torch.ones(2)).ratio == 0
    assert compare("w", torch.ones(2), torch.zeros(2)).ratio is None


class TestMethods:
    @pytest.fixture(scope="class")
    def registries(self):
        return Registries()

    def compared(self, registries, name, options=None, steps=4):
        method = registries.methods.load(name)(registries.task("static/digits"), options, steps=steps)
        torch.manual_seed(0)
        net = method.build()
        before = copy.deepcopy(net.state_dict())
        batch = next(method.task.batches("train", 8))
        found = {each.name: each for each in agreement(method, net, batch)}
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
        return found

    def test_an_exact_rule_is_not_compared(self, registries):
        assert self.compared(registries, "stbp") == {}

    def test_with_one_step_the_online_rule_is_exact(self, registries):
        for each in self.compared(registries, "ottt", steps=1).values():
            assert each.cosine == pytest.approx(1, abs=1e-5) and each.ratio == pytest.approx(1, abs=1e-5)

    def test_a_memoryless_read_out_that_is_not_traced_is_exact_and_earlier_layers_are_near(self, registries):
        found = self.compared(registries, "ottt", {"readout_trace": False})
        readout = next(each for name, each in found.items() if "readout" in name and name.endswith("weight"))
        assert readout.cosine == pytest.approx(1, abs=1e-5) and readout.ratio == pytest.approx(1, abs=1e-5)
        first = next(iter(found.values()))
        assert 0.2 < first.cosine < 0.9999

    def test_updates_of_every_step_are_added_up(self, registries):
        online, once = self.compared(registries, "ottt", {"update": "online"}), self.compared(registries, "ottt")
        assert all(math.isclose(online[name].ratio, once[name].ratio, rel_tol=1e-4) for name in once)
