from dataclasses import replace

import pytest
import torch

from harness.task import Backbone, Budget, Training
from methods.ann import Ann
from suites.adding import Adding
from suites.receptive_field import seeing

BUDGET = Budget(Training(epochs=1), Backbone("sequence", (8, 16)))


@pytest.mark.parametrize(
    ("steps", "widths"), [(1, (8, 16)), (16, (8, 16)), (17, (8, 16, 16)), (256, (8, *[16] * 3)), (32_788, (8, *[16] * 7))]
)
def test_layers_are_added_until_the_steps_are_seen(steps, widths):
    assert seeing(BUDGET, steps) == replace(BUDGET, backbone=Backbone("sequence", widths))


@pytest.mark.parametrize("length", [2, 64, 65, 300])
def test_the_reference_network_sees_the_first_step_from_the_last(length):
    task = Adding(options={"length": length})
    net = Ann(task).build().eval()
    sequence = torch.rand(length, 2, 2, requires_grad=True)
    net(sequence)[-1].sum().backward()
    assert sequence.grad[0].abs().sum() > 0
