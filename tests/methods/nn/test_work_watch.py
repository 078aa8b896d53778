"""What layers do in a training step: zeros, steps and shapes that are found by listening, against the tensors themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.nn.firing_slope import firing_slope
from methods.nn.layer import Layer
from methods.nn.lif_step import at_rest, reset, step
from methods.nn.neuron import LIF, ReLU
from methods.nn.norm import BatchNorm
from methods.nn.psn import PSN
from methods.nn.stepping import stepping
from methods.nn.surrogate import Rectangle
from methods.nn.synapse import AvgPool2d, Conv2d, DelayLine
from methods.nn.traced import Traced
from methods.nn.work_watch import WorkWatch

T, B, SIZE = 4, 3, 8


def image(steps: int = T) -> torch.Tensor:
    return torch.rand(1, B, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).expand(steps, -1, -1, -1, -1)


def convnet(leak: float = 0.5, backend: str = "auto") -> nn.Sequential:
    """Two convolution layers and a read-out."""
    torch.manual_seed(0)

    def lif() -> LIF:
        return LIF(leak, surrogate=Rectangle(), backend=backend)

    first, second = Conv2d(2, 5, 3, padding=1, bias=False), Conv2d(5, 6, 3, padding=1, bias=False)
    head = [AvgPool2d(2), nn.Flatten(2), nn.Linear(6 * 16, 3)]
    return nn.Sequential(Layer(first, BatchNorm(5), lif()), Layer(second, BatchNorm(6), lif()), *head)


def watched(net: nn.Module, x: torch.Tensor) -> WorkWatch:
    seen = WorkWatch(net)
    with seen:
        net(x).square().sum().backward()
    seen.samples += x.shape[1]
    seen.slopes()
    return seen


def test_shapes_and_steps_are_those_of_the_layers():
    seen = watched(convnet(), image())
    first, second, readout = (seen.work(name) for name in ("0.synapse", "1.synapse", "4"))
    assert (first.weights, first.inputs, first.outputs, first.places_in, first.places_out) == (2 * 5 * 9, 2 * 64, 5 * 64, 64, 64)
    assert (second.weights, second.inputs, second.outputs) == (5 * 6 * 9, 5 * 64, 6 * 64)
    assert (readout.weights, readout.inputs, readout.outputs, readout.linear) == (6 * 16 * 3, 6 * 16, 3, True)
    assert all((work.steps, work.back, work.passes) == (T, T, 0) for work in (first, second, readout))
    assert [work.fires for work in (first, second, readout)] == [True, True, False]
    assert [work.real for work in (first, second, readout)] == [True, False, True]  # pixels, spikes, averages of spikes


def test_zeros_of_inputs_are_those_of_the_spikes():
    net, spikes = convnet(), []
    net[0].register_forward_hook(lambda m, a, y: spikes.append(y))
    seen = watched(net, image())
    assert seen.sparsities("1.synapse")["ss"] == (spikes[0] == 0).double().mean().item() > 0
    assert seen.sparsities("0.synapse")["ss"] == 0


# 6
@pytest.mark.parametrize("leak", [0.5, 0.9])
def test_zeros_of_membrane_gradients_follow_those_of_the_firing_derivative(leak):
    net, gradients, currents = convnet(leak), [], []

    def keep(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        currents.append(args[0].detach())
        args[0].register_hook(gradients.append)

    handle = net[1].neuron.register_forward_pre_hook(keep)
    seen = watched(net, image())
    handle.remove()
    du, df = gradients[0], firing_slope(net[1].neuron, currents[0])
    assert torch.equal(du[-1] == 0, df[-1] == 0)
    assert 0 < (df == 0).float().mean() < 1
    found = seen.sparsities("1.synapse")
    assert found["sdu"] == pytest.approx((du == 0).double().mean().item())
    assert found["sdf"] == pytest.approx((df == 0).double().mean().item())
    assert found["sdu"] < found["sdf"]  # paths through time fill gradients in


def test_without_a_leak_gradients_are_zero_exactly_where_derivatives_are():
    found = watched(convnet(leak=0.0), image()).sparsities("1.synapse")
    assert found["sdu"] == found["sdf"] > 0


def test_zeros_are_those_of_the_potential_before_the_reset():
    """The written-out step, with a hook on u itself."""
    net, leak = convnet(), 0.5
    x = net[0].norm(net[0].synapse(image())).detach().requires_grad_()
    potentials, state, spikes = [], at_rest(x[0], 0.0, 0), []
    for now in x:
        u = leak * state[0] + now
        u.retain_grad()
        potentials.append(u)
        s, _ = step((torch.zeros_like(u),), u, 0.0, 1.0, lambda u, s: u, Rectangle())
        state = (reset(u, s.detach(), 1.0, "hard"),)
        spikes.append(s)
    net[4](net[3](net[2](net[1](torch.stack(spikes))))).square().sum().backward()
    wanted = torch.stack([u.grad for u in potentials])
    found = watched(convnet(), image()).sparsities("0.synapse")["sdu"]
    assert found == pytest.approx((wanted == 0).double().mean().item(), abs=2 / wanted.numel())


def test_fused_neurons_give_the_zeros_of_the_reference():
    fused, reference = (watched(convnet(backend=backend), image()) for backend in ("native", "reference"))
    for name in fused.layers():
        for kind in ("exact", "quantised"):
            for share, value in fused.sparsities(name, kind).items():
                assert value == pytest.approx(reference.sparsities(name, kind)[share], abs=2e-3)


def test_watching_changes_neither_answers_nor_gradients():
    nets = convnet(), convnet()
    nets[0](image()).square().sum().backward()
    watched(nets[1], image())
    for one, two in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in nets[1].modules())


def test_small_gradients_are_zeros_of_16_bits():
    seen = watched(convnet(), image()).synapses["4"].gradient
    seen.add(torch.tensor([1.0, 1e-5, 1e-6, 0.0]))
    assert seen.quantised - seen.exact >= 2


def test_a_gradient_that_passes_the_neurons_by_does_not_count_as_theirs():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.neuron, self.linear = nn.Linear(6, 6), LIF(0.5, surrogate=Rectangle(0.2)), nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return x + self.linear(self.neuron(x))

    torch.manual_seed(0)
    found = watched(Residual(), torch.randn(T, B, 6)).sparsities("stem")
    assert found["sdf"] >= found["sdu"] > 0.1


def test_a_parallel_neuron_shows_the_gradient_of_its_potential():
    torch.manual_seed(0)
    neuron = PSN(T)
    neuron.surrogate = Rectangle()
    net = nn.Sequential(nn.Linear(6, 6), neuron, nn.Linear(6, 2))
    seen = watched(net, torch.randn(T, B, 6)).sparsities("0")
    assert seen["sdu"] == seen["sdf"] > 0  # without memory in the potential
    assert "charge" not in vars(neuron)


def test_steps_without_a_gradient_run_forward_only():
    net, x = convnet(), image()
    seen = WorkWatch(net)
    with seen, stepping(net, detach=True):
        for t, now in enumerate(x.split(1)):
            with torch.set_grad_enabled(t == 2):
                out = net(now.clone())
            if t == 2:
                out.sum().backward()
    seen.samples += B
    seen.slopes()
    work = seen.work("1.synapse")
    assert (work.steps, work.back) == (T, 1)
    assert all(neuron.cut for neuron in seen.spiking)
    assert seen.neurons["1.neuron"].df.values == B * 6 * 64


def test_traces_have_fewer_zeros_than_their_inputs():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 40), LIF(0.5), Traced(nn.Linear(40, 5), 0.5), LIF(0.5), Traced(DelayLine(5, 4, 2, 1), 0.5)).train()
    seen = WorkWatch(net)
    with seen, stepping(net, detach=True):
        for now in 2 * torch.randn(T, B, 6).split(1)[0].expand(T, 1, B, 6):
            net(now).sum().backward()
    seen.samples += B
    found = seen.sparsities("2")
    assert 0 < found["trace"] < found["ss"]
    assert list(seen.layers()) == ["0", "2", "4"]
    assert (seen.work("4").steps, seen.work("4").weights, seen.work("0").trace) == (T, 5 * 4 * 2, None)


def test_a_network_without_spikes_has_no_spiking_layers():
    net = nn.Sequential(nn.Linear(6, 6), ReLU(), nn.Linear(6, 2))
    seen = watched(net, torch.randn(1, B, 6))
    assert seen.spiking == []
    assert (seen.work("0").steps, seen.work("0").fires, seen.work("2").fires) == (1, True, False)


def test_weights_that_spikes_and_an_ann_share_are_told_from_recomputation():
    net = nn.Sequential(nn.Linear(6, 6), LIF(0.5), nn.Linear(6, 2))
    branch = WorkWatch(net)
    x = 2 * torch.randn(T, B, 6)
    with branch:
        with torch.no_grad():
            net(x)
        net[2](net[0](x[:1]).relu()).sum().backward()
    branch.samples += B
    assert branch.shared
    assert (branch.work("2").steps, branch.work("2").passes, branch.work("2").back) == (T, 1, 1)
    assert not branch.work("2").real  # that of the ANN does not count
    again = WorkWatch(net)
    with again:
        with torch.no_grad():
            net(x)
        net(x).sum().backward()
    again.samples += B
    assert again.run_twice
    assert not again.shared
    assert again.work("2").steps == 2 * T
