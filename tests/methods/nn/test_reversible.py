"""Reversible sequences of any functions: gradients, and everything that a second run must meet again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from methods.nn.dropout import SequenceDropout
from methods.nn.layout import channels_last, dense_step
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.reversible import ReversibleBlock, ReversibleSequence, halves, joined
from methods.nn.stepping import is_stepping, stepping
from methods.nn.synapse import Conv2d


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def spiking(features, *more):
    return nn.Sequential(LIF(0.5, 0.5), Conv2d(features, features, 3, padding=1, bias=False), BatchNorm(features), *more)


def pair(make, count=3, seed=0):
    """Return a reversible sequence and its twin with plain autograd, of equal weights."""
    torch.manual_seed(seed)
    one = ReversibleSequence([ReversibleBlock(make(), make()) for _ in range(count)])
    two = copy.deepcopy(one)
    two.reversible = False
    return one, two


def streams(*shape, dtype=torch.float64):
    return normal(*shape, dtype=dtype).requires_grad_(), normal(*shape, seed=1, dtype=dtype).requires_grad_()


def gradients(sequence, x1, x2, **kwargs):
    """Return outputs, gradients of the streams and those of the parameters, for fixed gradients of the outputs."""
    y1, y2 = sequence(x1, x2)
    loss = (y1 * normal(*y1.shape, seed=2, dtype=y1.dtype)).sum() + (y2 * normal(*y2.shape, seed=3, dtype=y2.dtype)).sum()
    wanted = [x1, x2, *(p for p in sequence.parameters() if p.requires_grad)]
    return [y1.detach(), y2.detach(), *torch.autograd.grad(loss, wanted, **kwargs)]


def assert_alike(one, two, rtol=1e-9, atol=1e-9):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def test_gradients_of_smooth_functions_are_those_of_finite_differences():
    torch.manual_seed(0)
    sequence = ReversibleSequence([ReversibleBlock(*(nn.Sequential(nn.Linear(3, 3), nn.Tanh()) for _ in "fg")) for _ in range(3)]).double()
    names = [name for name, _ in sequence.named_parameters()]

    def run(x1, x2, *values):
        return functional_call(sequence, dict(zip(names, values, strict=True)), (x1, x2))

    assert torch.autograd.gradcheck(run, (*streams(2, 2, 3), *sequence.parameters()), rtol=1e-6, atol=1e-8)


def test_gradients_of_one_stream_only_and_of_functions_that_ignore_their_input():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(normal(4))

        def forward(self, x):
            return self.value.expand_as(x)

    def run(sequence, x1, x2):
        return torch.autograd.grad(sequence(x1, x2)[1].sum(), [x1, x2, *sequence.parameters()])

    for make in (Constant, lambda: nn.Linear(4, 4).double()):
        one, two = pair(make)
        x1, x2 = streams(2, 3, 4)
        plain = torch.autograd.grad(two(x1, x2)[1].sum(), [x1, x2, *two.parameters()], allow_unused=True, materialize_grads=True)
        found = torch.autograd.grad(one(x1, x2)[1].sum(), [x1, x2, *one.parameters()], allow_unused=True, materialize_grads=True)
        assert_alike(found, plain)


def test_parameters_that_several_blocks_share_get_the_sum_of_their_gradients():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4).double()
    one = ReversibleSequence([ReversibleBlock(shared, nn.Tanh()), ReversibleBlock(nn.Tanh(), shared)])
    two = copy.deepcopy(one)
    two.reversible = False
    x = streams(2, 3, 4)
    assert_alike(gradients(one, *x), gradients(two, *x))


def test_frozen_parameters_get_no_gradient_and_disturb_no_other():
    one, two = pair(lambda: spiking(4).double())
    for sequence in (one, two):
        sequence.blocks[1].f[1].weight.requires_grad_(False)
    x = streams(3, 2, 4, 5, 5)
    assert_alike(gradients(one, *x), gradients(two, *x))
    sum(y.sum() for y in one(*x)).backward()
    assert one.blocks[1].f[1].weight.grad is None
    assert one.blocks[0].f[1].weight.grad is not None


def test_streams_without_gradient_are_fine_too():
    one, two = pair(lambda: spiking(4).double())
    x1, x2 = (x.detach() for x in streams(3, 2, 4, 5, 5))
    for sequence in (one, two):
        sum(y.square().sum() for y in sequence(x1, x2)).backward()
    assert_alike([p.grad for p in one.parameters()], [p.grad for p in two.parameters()])


def test_one_graph_can_be_differentiated_twice_and_then_not_again():
    one, two = pair(lambda: spiking(4).double())
    x = streams(3, 2, 4, 5, 5)
    before = [buffer.clone() for buffer in one.buffers()]
    loss = sum(y.square().sum() for y in one(*x))
    moved = [buffer.clone() for buffer in one.buffers()]
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in one.parameters()]
    loss.backward()
    assert_alike([p.grad for p in one.parameters()], [2 * grad for grad in once])
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), moved, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("drop", [nn.Dropout(0.4), SequenceDropout(0.4)], ids=lambda drop: type(drop).__name__)
def test_random_numbers_are_those_of_the_first_run_and_the_generator_goes_on(drop):
    one, two = pair(lambda: spiking(4, copy.deepcopy(drop)).double())
    x = streams(3, 2, 4, 5, 5)
    found = []
    for sequence in (one, two):
        torch.manual_seed(7)
        found.append([*gradients(sequence, *x), torch.rand(3)])
    assert_alike(*found)


def test_without_the_replay_of_random_numbers_the_gradient_would_be_another():
    one, two = pair(lambda: spiking(4, nn.Dropout(0.4)).double())
    x = streams(3, 2, 4, 5, 5)
    torch.manual_seed(7)
    y1, y2 = one(*x)
    y1.grad_fn.replay.calls = [call._replace(random=None) for call in y1.grad_fn.replay.calls]
    (wrong,) = torch.autograd.grad(y1.sum() + y2.square().sum(), x[0])
    torch.manual_seed(7)
    y1, y2 = two(*x)
    (right,) = torch.autograd.grad(y1.sum() + y2.square().sum(), x[0])
    assert not torch.allclose(wrong, right, rtol=1e-3)


def test_random_state_is_kept_only_for_functions_that_draw():
    sequence = ReversibleSequence([ReversibleBlock(spiking(4), spiking(4, nn.Dropout(0.1)))])
    y1, _ = sequence(*streams(3, 2, 4, 5, 5, dtype=torch.float32))
    assert [call.random is None for call in y1.grad_fn.replay.calls] == [True, False]


@pytest.mark.parametrize("outside", [False, True])
def test_under_autocast_gradients_are_those_of_plain_autograd_also_where_the_backward_pass_runs_outside(outside):
    found = []
    for sequence in pair(lambda: spiking(4)):
        x = streams(3, 2, 4, 5, 5, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            y1, y2 = sequence(*x)
            if not outside:
                with torch.autocast("cpu", enabled=False):  # as the harness's update does
                    (y1.square().sum() + y2.square().sum()).backward()
        if outside:
            (y1.square().sum() + y2.square().sum()).backward()
        assert y1.dtype == y2.dtype == torch.float32
        found.append([y1.detach(), y2.detach(), *(p.grad for p in (*x, *sequence.parameters()))])
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert_alike(*found, rtol=1e-3, atol=1e-3)
    y1 = pair(lambda: spiking(4))[0](*streams(3, 2, 4, 5, 5, dtype=torch.float32))[0]
    assert not torch.equal(y1, found[0][0])  # autocast did something


def test_streams_in_half_precision_become_single_precision():
    for sequence in pair(lambda: spiking(4)):
        with torch.autocast("cpu", torch.bfloat16):
            y1, y2 = sequence(*streams(3, 2, 4, 5, 5, dtype=torch.bfloat16))
        assert y1.dtype == y2.dtype == torch.float32


def test_a_change_of_mode_before_the_backward_pass_does_not_matter():
    one, two = pair(lambda: spiking(4).double())
    x = streams(3, 2, 4, 5, 5)
    y1, y2 = one(*x)
    one.eval()
    found = torch.autograd.grad(y1.square().sum() + y2.sum(), [*x, *one.parameters()])
    assert not any(module.training for module in one.modules())
    y1, y2 = two(*x)
    assert_alike(found, torch.autograd.grad(y1.square().sum() + y2.sum(), [*x, *two.parameters()]))


def test_in_eval_mode_gradients_are_exact_and_buffers_that_changed_are_noticed():
    one, two = (sequence.eval() for sequence in pair(lambda: spiking(4).double()))
    x = streams(3, 2, 4, 5, 5)
    assert_alike(gradients(one, *x), gradients(two, *x))
    loss = sum(y.sum() for y in one(*x))
    one.blocks[0].f[2].running_mean.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_weights_that_changed_before_the_backward_pass_are_noticed():
    one, _ = pair(lambda: spiking(4).double())
    loss = sum(y.sum() for y in one(*streams(3, 2, 4, 5, 5)))
    with torch.no_grad():
        one.blocks[1].g[1].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_weights_of_a_functional_call_are_those_of_the_second_run_too():
    one, two = pair(lambda: spiking(4).double())
    other = {name: (2 * p.detach()).requires_grad_() for name, p in one.named_parameters()}
    x = streams(3, 2, 4, 5, 5)
    found = []
    for sequence in (one, two):
        y1, y2 = functional_call(sequence, other, x)
        found.append(torch.autograd.grad(y1.square().sum() + y2.sum(), [*x, *other.values()]))
    assert_alike(*found)


def test_steps_one_at_a_time_equal_the_whole_sequence_and_gradients_flow_through_them():
    for sequence in pair(lambda: spiking(4).double()):
        sequence.eval()
        x1, x2 = streams(4, 2, 4, 5, 5)
        with stepping(sequence):
            parts = [sequence(x1[t : t + 1], x2[t : t + 1]) for t in range(4)]
        stepped = [torch.cat(y) for y in zip(*parts, strict=True)]
        whole = sequence(x1, x2)
        assert_alike(stepped, whole, rtol=1e-12, atol=1e-12)
        grads = [torch.autograd.grad(y1.square().sum() + y2.sum(), [x1, *sequence.parameters()]) for y1, y2 in (stepped, whole)]
        assert_alike(*grads)


def test_a_backward_pass_while_stepping_is_refused():
    one, _ = pair(lambda: spiking(4).double())
    loss = sum(y.sum() for y in one(*streams(3, 2, 4, 5, 5)))
    assert not is_stepping(one)
    with stepping(one), pytest.raises(RuntimeError, match=r"leave `with stepping\(net\)`"):
        assert is_stepping(one)
        loss.backward()


def test_without_gradients_no_graph_is_made():
    one, _ = pair(lambda: spiking(4).double())
    with torch.no_grad():
        y1, _ = one(*streams(3, 2, 4, 5, 5))
    assert y1.grad_fn is None


def test_an_empty_sequence_is_the_identity():
    x1, x2 = streams(2, 2, 4)
    y1, y2 = ReversibleSequence([])(x1, x2)
    assert y1 is x1 and y2 is x2


@pytest.mark.parametrize("lay", [lambda x: x, channels_last], ids=["contiguous", "channels-last"])
def test_halves_and_their_join_keep_values_and_layout(lay):
    x = lay(normal(3, 2, 6, 4, 5))
    one, two = halves(x)
    assert torch.equal(one, x[:, :, :3]) and torch.equal(two, x[:, :, 3:])
    back = joined(one, two)
    assert torch.equal(back, x) and back.stride() == x.stride()
    assert all(dense_step(half) and (half.stride(2) == 1) == (x.stride(2) == 1) for half in (one, two))


def test_an_odd_number_of_channels_has_no_halves():
    with pytest.raises(ValueError, match="5 channels cannot be split"):
        halves(normal(2, 2, 5))
