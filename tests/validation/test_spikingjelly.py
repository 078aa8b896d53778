"""Our count of accumulates against SpikingJelly's counter, on 0/1 inputs and dense weights (extra ``validate``)."""

import pytest
import torch
from torch import nn

from harness.meters.synops import SynopsMeter

pytest.importorskip("spikingjelly", reason="pip install 'spikebench[peers]'")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(12, 7, bias=False), (12,)),
        (nn.Conv2d(2, 4, 3, bias=False), (2, 8, 8)),
        (nn.Conv2d(2, 4, 3, padding=1, bias=False), (2, 8, 8)),
        (nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), (2, 9, 9)),
        (nn.Conv2d(4, 4, 3, groups=2, bias=False), (4, 6, 6)),
    ],
    ids=["linear", "conv", "padding", "stride", "groups"],
)
def test_accumulates_are_theirs(layer, shape):
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

    torch.manual_seed(0)
    x = (torch.rand(3, *shape) < 0.3).float()
    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        layer(x)
    with SynopsMeter(nn.Sequential(layer)) as meter, torch.no_grad():
        layer(x)
    found = meter.result(1)
    assert found.effective == found.ac == counter.get_total()
