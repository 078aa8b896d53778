"""Neurons with attention on their potential: the numbered faithfulness tests of the card, and both backends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.meters.synops import SynopsMeter
from methods.nn import attentive_lif, attentive_native, native
from methods.nn.attentive_lif import AttentiveLIF, columns, restored, walk
from methods.nn.layout import channels_last
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.stepping import stepping
from methods.nn.surrogate import SURROGATES, Arctan
from methods.nn.synapse import Conv2d

KINDS = ("fused", "spatial", "channel")
BACKENDS = ("native", "reference") if native.available(torch.float64) else ("reference",)
C, H, W = 8, 3, 5


def currents(steps=4, batch=3, seed=0, shape=(C, H, W)):
    return torch.randn(steps, batch, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.3


def attentive(attention="fused", backend="reference", seed=1, features=C, **settings):
    torch.manual_seed(seed)
    neuron = AttentiveLIF(features, attention, backend=backend, **settings).double()
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.mul_(3)  # gates that differ from place to place
        if neuron.squeeze is not None:
            neuron.squeeze[0].abs_()  # one hidden unit is never silent
    return neuron


def history(neuron, x):
    """Return spikes, potentials before the reset and gates of every step, ``[T, B, C, H, W]``, straight from the card's equations."""
    s = v = torch.zeros_like(x[0])
    found = []
    for now in x:
        gate = torch.ones_like(s)
        if neuron.weight is not None:
            gate = gate * torch.sigmoid((s * neuron.weight.view(-1, 1, 1)).sum(1, keepdim=True) + neuron.bias)
        if neuron.squeeze is not None:
            hidden = torch.relu(torch.einsum("hc,bc->bh", neuron.squeeze, s.mean((2, 3))))
            gate = gate * torch.sigmoid(torch.einsum("ch,bh->bc", neuron.excite, hidden))[:, :, None, None]
        u = neuron.rule.leak * gate * v * (1 - s) + now  # v is reset here, as in the card
        s, v = (u > neuron.rule.threshold).to(u.dtype), u
        found.append((s, u, gate))
    return [torch.stack(part).detach() for part in zip(*found, strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("attention", KINDS)
def test_the_spikes_follow_the_equations_of_the_card(attention, backend):
    neuron, x = attentive(attention, backend), currents(steps=6)
    spikes = neuron(x)
    assert torch.equal(spikes, history(neuron, x)[0])
    assert 0.1 < spikes.mean() < 0.9
    assert neuron.used == backend


# 1
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("leak", [0.5, 0.3])
def test_with_gates_of_one_the_layer_is_the_baseline_bit_by_bit(backend, leak):
    neuron, x = attentive("spatial", backend, leak=leak), currents(steps=6)
    with torch.no_grad():
        neuron.weight.zero_()
        neuron.bias.fill_(50.0)  # its sigmoid is 1 in double precision
    assert neuron.attend(torch.ones_like(x[0])).eq(1).all()
    assert torch.equal(neuron(x), LIF(leak, strict=True, backend="reference")(x))


def test_fused_gates_forced_to_one_give_the_baseline_bit_by_bit(monkeypatch):
    neuron, x = attentive("fused"), currents(steps=6)
    assert not torch.equal(neuron(x), LIF(strict=True)(x))
    monkeypatch.setattr(attentive_lif.Gates, "__call__", lambda self, s: (torch.ones_like(s[..., :1]), torch.ones_like(s[:, :1])))
    assert torch.equal(neuron(x), LIF(strict=True)(x))


# 2
def test_potentials_equal_the_baseline_at_the_first_step_and_differ_at_the_second():
    neuron, x = attentive(), currents()
    _, potentials, _ = history(neuron, x)
    u = x[0]
    baseline = [u, 0.5 * u * (u <= 1) + x[1]]
    assert torch.equal(potentials[0], baseline[0])
    assert (potentials[1] != baseline[1]).any()
    found = [v for _, v in walk(columns(x), None, None, neuron.gates, neuron.rule)]
    assert torch.equal(restored(found[0], x.shape), u * (u <= 1))


# 3
def test_fused_gates_lie_between_zero_and_one_and_have_rank_one_over_channels_and_places():
    neuron, x = attentive(), currents()
    gates = neuron.attend(neuron(x)[1].detach())
    assert gates.shape == (3, C, H, W)
    assert ((gates > 0) & (gates < 1)).all()
    assert torch.linalg.matrix_rank(gates.flatten(2)).tolist() == [1, 1, 1]
    torch.testing.assert_close(gates, history(neuron, x)[2][2], rtol=1e-14, atol=0)


@pytest.mark.parametrize(("attention", "differs_over"), [("spatial", (0, 2)), ("channel", (0, 1))])
def test_a_single_gate_depends_on_space_or_channel_alone(attention, differs_over):
    gates = attentive(attention).attend(attentive()(currents())[0].detach())
    varying = [dim for dim, size in enumerate((gates.std(0), gates.std(1), gates.flatten(2).std(2))) if (size > 1e-12).any()]
    assert tuple(varying) == ((0, 2) if attention == "spatial" else (0, 1)) == differs_over


# 4
@pytest.mark.parametrize("attention", KINDS)
def test_what_is_carried_over_never_exceeds_the_baselines_carry(attention):
    neuron, x = attentive(attention), currents()
    spikes, potentials, _ = history(neuron, x)
    carried, baseline = (potentials[1] - x[1]).abs(), (0.5 * potentials[0] * (1 - spikes[0])).abs()
    assert (carried <= baseline + 1e-15).all()
    assert (carried < baseline).any()


# 5
@pytest.mark.parametrize("backend", BACKENDS)
def test_gates_up_to_a_step_do_not_depend_on_its_input(backend):
    neuron, x = attentive(backend=backend), currents(steps=5)
    changed = x.clone()
    changed[2] += 2.0
    before, after = neuron(x).detach(), neuron(changed).detach()
    gates = [[neuron.attend(s) for s in spikes] for spikes in (before, after)]  # entry t is the gate of step t + 1
    assert torch.equal(before[:2], after[:2])
    assert all(torch.equal(a, b) for a, b in zip(gates[0][:2], gates[1][:2], strict=True))
    assert not torch.equal(gates[0][2], gates[1][2])


# 6
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("attention", KINDS)
def test_attention_learns_nothing_from_one_step_and_something_from_three(attention, backend):
    neuron = attentive(attention, backend)
    for steps in (1, 3):
        neuron.zero_grad()
        x = currents(steps).requires_grad_()
        (neuron(x) * currents(steps, seed=5)).sum().backward()
        grads = [torch.zeros(()) if p.grad is None else p.grad for p in neuron.parameters()]
        assert all(bool(grad.count_nonzero()) == (steps == 3) for grad in grads)


# 7
@pytest.mark.parametrize("features", [6, 16, 64])
def test_extra_parameters_are_those_of_the_card(features):
    count = {kind: sum(p.numel() for p in AttentiveLIF(features, kind).parameters()) for kind in KINDS}
    assert count["fused"] == 2 * features * (features // 4) + features + 1
    assert count["spatial"] == features + 1
    assert count["channel"] == count["fused"] - count["spatial"]


# 8
@pytest.mark.parametrize("attention", KINDS)
def test_the_current_is_not_gated(attention):
    torch.manual_seed(0)
    conv, norm = Conv2d(2, C, 3, padding=1).double(), BatchNorm(C).double()
    current = norm(conv(currents(1, shape=(2, H, W)))).detach()
    s = (currents(1, seed=9) > 0.2).double()[0]
    gates = attentive(attention, seed=3).gates
    ((_, v),) = walk(columns(current), torch.zeros_like(columns(s)), columns(s), gates, attentive(attention, threshold=1e9).rule)
    assert torch.equal(restored(v, current.shape[1:]), current[0])


def test_a_silent_layer_has_channel_gates_of_one_half_and_spatial_gates_of_the_bias():
    silent = torch.zeros(2, C, H, W, dtype=torch.float64)
    assert attentive("channel").attend(silent).eq(0.5).all()
    spatial = attentive("spatial")
    torch.testing.assert_close(spatial.attend(silent), torch.sigmoid(spatial.bias).expand_as(silent))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("attention", KINDS)
def test_native_gradients_equal_autograd_through_the_reference(attention, detach_reset, strict):
    if "native" not in BACKENDS:
        pytest.skip(native.describe())
    settings = {"detach_reset": detach_reset, "strict": strict, "surrogate": Arctan(2.0), "threshold": 0.8}
    found = []
    for backend in BACKENDS:
        neuron, x = attentive(attention, backend, **settings), currents(5).requires_grad_()
        with stepping(neuron):  # the gradients of the state too
            spikes = torch.cat([neuron(x[:2]), neuron(x[2:])])
        found.append([spikes, *torch.autograd.grad((spikes * currents(5, seed=7)).sum(), [x, *neuron.parameters()])])
    assert torch.equal(found[0][0], found[1][0])
    for one, two in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13)
        assert one.count_nonzero()


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_native_knows_every_surrogate(name):
    if "native" not in BACKENDS:
        pytest.skip(native.describe())
    grads = []
    for backend in BACKENDS:
        x = currents().requires_grad_()
        (attentive(backend=backend, surrogate=SURROGATES[name])(x) * currents(seed=7)).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (8, 1, 1), (3, 2, 2)])
def test_any_shape_and_layout_gives_the_same(backend, shape):
    x = currents(3, 2, shape=shape)
    neuron = attentive(backend=backend, features=shape[0])
    expected = history(neuron, x)[0]
    assert torch.equal(neuron(x), expected)
    assert torch.equal(neuron(channels_last(x)), expected)
    with torch.no_grad():
        assert torch.equal(neuron(x), expected)
    repeated = x[:1].expand(3, *x.shape[1:])
    assert torch.equal(neuron(repeated), history(neuron, repeated)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_single_steps_equal_the_whole_sequence_and_leave_nothing(backend):
    neuron, x = attentive(backend=backend), currents(5)
    with stepping(neuron), torch.no_grad():
        single = torch.cat([neuron(x[t : t + 1]) for t in range(5)])
        assert sum(part.numel() for part in neuron.carried()) == 2 * x[0].numel()  # potential and spikes
    assert torch.equal(single, neuron(x))
    assert neuron.carried() is None


def test_bfloat16_currents_give_the_spikes_of_the_same_numbers_in_single_precision():
    neuron, x = attentive().float(), currents().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        spikes = neuron(x)
    narrow = attentive().bfloat16()
    assert narrow(x).dtype == torch.bfloat16 and narrow.attend(x[0]).dtype == torch.float32
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), neuron(x.float()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_current_that_is_not_a_number_shows(backend):
    x = currents()
    x[1, 0, 2, 1, 1] = float("nan")
    assert attentive(backend=backend)(x)[1, 0, 2, 1, 1].isnan()


def test_with_one_seed_other_layers_start_the_same_whatever_the_attention():
    drawn = []
    for kind in KINDS:
        torch.manual_seed(4)
        first = AttentiveLIF(C, kind)
        drawn.append(torch.rand(3))
        assert all(p.abs().max() <= C**-0.5 or p is first.excite for p in first.parameters())
    torch.manual_seed(4)
    assert all(torch.equal(each, torch.rand(3)) for each in drawn[:1])
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[1], drawn[2])


@pytest.mark.parametrize("attention", KINDS)
def test_the_operations_of_attention_are_counted_the_same_in_one_call_and_step_by_step(attention):
    neuron, x = attentive(attention), currents(4, 2)
    spikes, potentials, _ = history(neuron, x)
    s, v = spikes[:-1], (potentials * (1 - spikes))[:-1]
    expected = (2 if attention == "fused" else 1) * v.count_nonzero()
    if attention != "channel":
        expected += s.count_nonzero()
    if attention != "spatial":
        pooled = s.mean((-2, -1))
        hidden = torch.relu(pooled @ neuron.squeeze.T)
        expected += pooled.count_nonzero() * (C // 4) + hidden.count_nonzero() * C
    net = nn.Sequential(neuron)
    with SynopsMeter(net) as whole, torch.no_grad():
        net(x)
    with SynopsMeter(net) as single, torch.no_grad(), stepping(net):
        for t in range(4):
            net(x[t : t + 1])
    assert whole.result(2).other == single.result(2).other == float(expected) / 2 > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"attention": "time"}, "fused"), ({"backend": "triton"}, "reference"), ({"reduction": 0}, "1 and more")],
)
def test_settings_that_are_unknown_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentiveLIF(C, **arguments)


def test_currents_of_other_channels_or_without_space_are_refused():
    with pytest.raises(ValueError, match=r"\[T, B, 8, H, W\]"):
        attentive()(torch.zeros(2, 3, 7, 4, 4))
    with pytest.raises(ValueError, match="attention over 8 channels"):
        attentive()(torch.zeros(2, 3, 8))


def test_native_that_cannot_be_used_says_why():
    with pytest.raises(RuntimeError, match="does not know the surrogate"):
        attentive(backend="native", surrogate=lambda d: 1 / (1 + d.abs()))(currents())
    assert "float32 and float64" in attentive_native.why_not(columns(currents()).half(), Arctan(2.0))
