"""Dynamic decay by the Triton scan against the equations: on a GPU, or in Triton's interpreter (see ``test_triton_kernels``)."""

from __future__ import annotations

import os

import pytest
import torch

from methods.nn.dynamic_decay import DynamicDecay

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="neither a CUDA device nor TRITON_INTERPRET=1"),
]


@pytest.mark.parametrize("gate", ["depthwise", "full"])
def test_numbers_and_gradients_are_those_of_the_equations(gate):
    torch.manual_seed(0)
    exact = DynamicDecay(3, gate=gate, gate_bias=1.0, backend="reference").double().to(DEVICE)
    scanned = DynamicDecay(3, gate=gate, backend="triton").double().to(DEVICE)
    scanned.load_state_dict(exact.state_dict())
    x = (2 * torch.randn(11, 2, 3, dtype=torch.float64)).to(DEVICE).requires_grad_()
    weights = torch.randn(11, 2, 3, dtype=torch.float64).to(DEVICE)
    assert torch.equal(scanned(x), exact(x))
    for output in (DynamicDecay.forward, DynamicDecay.potentials):
        found, expected = (
            torch.autograd.grad((output(module, x) * weights).sum(), (x, module.weight, module.bias)) for module in (scanned, exact)
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
