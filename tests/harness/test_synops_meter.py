"""Synaptic operations against loops over every output, input and tap."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.meters.synops import Operations, SynopsMeter, fan_out


def measure(net: nn.Module, *calls: Tensor, samples: int = 1):
    with SynopsMeter(net) as meter, torch.no_grad():
        for x in calls:
            net(x)
    return meter.result(samples)


def sparse(*shape: int, values: tuple[float, ...] = (1.0,)) -> Tensor:
    """Return random zeros and ``values``."""
    return torch.tensor([0.0, *values])[torch.randint(0, len(values) + 1, shape)]


def pruned(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        module.weight *= torch.rand_like(module.weight) < 0.6
    return module


def linear_by_loops(x: Tensor, weight: Tensor) -> tuple[int, int]:
    """Return (effective, dense) operations of vectors ``x [N, in]``."""
    effective = dense = 0
    for n, o, i in product(range(len(x)), range(weight.shape[0]), range(weight.shape[1])):
        dense += 1
        effective += bool(x[n, i] != 0) and bool(weight[o, i] != 0)
    return effective, dense


def conv2d_by_loops(x: Tensor, conv: nn.Conv2d) -> tuple[int, int]:
    """Return (effective, dense) operations of images ``x [N, C, H, W]``, zero padding."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    height, width = x.shape[2:]
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    per_out, per_in = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    spikes, weight = (x != 0).tolist(), (conv.weight != 0).tolist()
    effective = dense = 0
    for n, o, r, c in product(range(len(x)), range(conv.out_channels), range(rows), range(columns)):
        first = o // per_out * per_in
        for i, a, b in product(range(per_in), range(kh), range(kw)):
            y, z = r * sh - ph + a * dh, c * sw - pw + b * dw
            if 0 <= y < height and 0 <= z < width:
                dense += 1
                effective += spikes[n][first + i][y][z] and weight[o][i][a][b]
    return effective, dense


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_a_linear_layer_counts_as_loops_do():
    layer, x = pruned(nn.Linear(6, 5)), sparse(7, 6)
    effective, dense = linear_by_loops(x, layer.weight)
    found = measure(nn.Sequential(layer), x, samples=7)
    assert (found.effective, found.dense) == (effective / 7, dense / 7)
    assert found.layers == {"0": Operations(effective / 7, dense / 7, effective / 7, 0.0, dense / 7)}
    assert found.connection_sparsity == pytest.approx((layer.weight == 0).double().mean().item()) and found.other == 0


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 2, "stride": 2},
        {"kernel_size": (2, 3), "padding": (0, 1), "stride": (2, 1)},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "groups": 2},
        {"kernel_size": 3, "padding": 1, "stride": 3, "groups": 4},
        {"kernel_size": 1},
    ],
)
def test_a_convolution_counts_as_loops_do(options):
    conv, x = pruned(nn.Conv2d(4, 8, **options)), sparse(3, 4, 7, 6)
    effective, dense = conv2d_by_loops(x, conv)
    found = measure(nn.Sequential(conv), x, samples=3)
    assert (found.effective, found.dense, found.ac, found.mac) == (effective / 3, dense / 3, effective / 3, 0)


def test_same_padding_counts_as_the_same_amount_given_in_numbers():
    named, given = nn.Conv2d(2, 3, 3, padding="same"), nn.Conv2d(2, 3, 3, padding=1)
    given.load_state_dict(named.state_dict())
    x = sparse(2, 2, 5, 5)
    assert measure(nn.Sequential(named), x).effective == conv2d_by_loops(x, given)[0]


def test_circular_padding_is_real_input():
    conv, x = pruned(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")), sparse(2, 2, 5, 5)
    inside = nn.Conv2d(2, 3, 3)
    inside.load_state_dict(conv.state_dict())
    effective, dense = conv2d_by_loops(F.pad(x, (1, 1, 1, 1), mode="circular"), inside)
    found = measure(nn.Sequential(conv), x)
    assert (found.effective, found.dense) == (effective, dense)


def test_a_convolution_over_time_counts_as_one_over_an_image_of_height_one():
    conv, flat = pruned(nn.Conv1d(3, 4, 3, padding=2, dilation=2)), nn.Conv2d(3, 4, (1, 3), padding=(0, 2), dilation=(1, 2))
    with torch.no_grad():
        flat.weight.copy_(conv.weight.unsqueeze(2))
    x = sparse(2, 3, 9)
    found = measure(nn.Sequential(conv), x)
    assert (found.effective, found.dense) == conv2d_by_loops(x.unsqueeze(2), flat)


def test_input_that_is_not_a_spike_is_multiplied():
    layer = pruned(nn.Linear(6, 5))
    spikes, currents = sparse(4, 6, values=(1.0, -1.0)), sparse(3, 6, values=(0.5, 1.0)) + torch.tensor([0.25, 0, 0, 0, 0, 0])
    found = measure(nn.Sequential(layer), torch.cat([spikes, currents]))
    assert found.ac == linear_by_loops(spikes, layer.weight)[0]
    assert found.mac == linear_by_loops(currents, layer.weight)[0]
    assert found.effective == found.ac + found.mac


def test_one_graded_pixel_makes_its_image_multiply_and_no_other():
    conv, x = nn.Conv2d(1, 2, 3), sparse(2, 1, 5, 5)
    x[1, 0, 2, 2] = 0.5
    found = measure(nn.Sequential(conv), x)
    assert found.ac == conv2d_by_loops(x[:1], conv)[0]
    assert found.mac == conv2d_by_loops(x[1:], conv)[0]


def test_nan_is_not_a_spike_and_not_nothing():
    found = measure(nn.Sequential(nn.Linear(3, 2)), torch.tensor([[0.0, float("nan"), 1.0]]))
    assert (found.effective, found.ac, found.mac) == (4, 0, 4)


class TimeMajor(nn.Conv2d):
    """A convolution that is called with ``[T, B, C, H, W]``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@pytest.mark.parametrize("values", [(1.0,), (1.0, 0.5)])
def test_time_first_merged_or_step_by_step_count_alike(values):
    conv, x = nn.Sequential(pruned(TimeMajor(2, 3, 3, padding=1))), sparse(4, 3, 2, 5, 5, values=values)
    merged = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1))
    merged.load_state_dict(conv.state_dict())
    whole = measure(conv, x, samples=3)
    assert whole.effective == conv2d_by_loops(x.flatten(0, 1), conv[0])[0] / 3
    assert whole == measure(conv, *x.split(1), samples=3)
    assert replace(whole, curve=None) == measure(merged, x.flatten(0, 1), samples=3)
    assert whole.curve == [conv2d_by_loops(now, conv[0])[0] / 3 for now in x]


def test_a_linear_layer_on_a_sequence_counts_every_step():
    layer, x = nn.Linear(6, 5), sparse(4, 3, 6)
    assert measure(nn.Sequential(layer), x).effective == linear_by_loops(x.flatten(0, 1), layer.weight)[0]


def test_an_image_repeated_over_time_counts_once_per_step():
    conv, image = nn.Sequential(TimeMajor(2, 3, 3, padding=1)), torch.randn(3, 2, 5, 5)
    repeated = image.unsqueeze(0).expand(4, -1, -1, -1, -1)
    assert measure(conv, repeated) == measure(conv, repeated.contiguous())
    assert measure(conv, repeated).effective == 4 * conv2d_by_loops(image, conv[0])[0]
    assert measure(conv, repeated).curve == [conv2d_by_loops(image, conv[0])[0]] * 4


def test_operations_at_each_step_add_up_over_layers_and_batches():
    net, x = nn.Sequential(pruned(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 2)), sparse(4, 6, 6)
    with SynopsMeter(net) as meter, torch.no_grad():
        for batch in x.split(2, dim=1):
            meter.begin()
            net(batch)
    found = meter.result(6)
    hidden = net[:2](x).detach()
    wanted = [linear_by_loops(x[t], net[0].weight)[0] + linear_by_loops(hidden[t], net[2].weight)[0] for t in range(4)]
    assert found.curve == [count / 6 for count in wanted] and sum(found.curve) == pytest.approx(found.effective)


def test_a_convolution_over_time_counts_at_the_step_of_its_output():
    conv, x = pruned(nn.Conv1d(4, 6, 3, dilation=2, groups=2)), sparse(3, 4, 9)
    conv.over_time = True
    single = nn.Conv1d(4, 6, 3, dilation=2, groups=2)
    single.load_state_dict(conv.state_dict())
    wanted = [measure(nn.Sequential(single), x[..., t : t + 5], samples=3).effective for t in range(5)]
    assert measure(nn.Sequential(conv), x, samples=3).curve == pytest.approx(wanted)


def test_layers_that_do_not_show_their_steps_leave_no_curve():
    merged, layer = nn.Sequential(nn.Flatten(0, 1), nn.Linear(6, 5)), nn.Linear(6, 5)
    assert measure(merged, sparse(4, 3, 6)).curve is None
    assert measure(nn.Sequential(layer), sparse(257, 1, 6)).curve is None
    assert measure(nn.ModuleDict({"long": layer}), samples=1).curve is None


def test_layers_that_went_unequally_far_leave_no_curve():
    class Halved(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x)[::2])

    assert measure(Halved(nn.Linear(6, 5), nn.Linear(5, 2)), sparse(4, 3, 6)).curve is None


def test_the_count_per_sample_does_not_depend_on_the_batch():
    net, x = nn.Sequential(pruned(nn.Conv2d(2, 3, 3, padding=1)), nn.ReLU(), nn.Flatten(), nn.Linear(75, 4)), sparse(6, 2, 5, 5)
    x[2:4] *= 0.5
    whole = measure(net, x, samples=6)
    assert whole == measure(net, *x.split(1), samples=6) == measure(net, x[:2], x[2:], samples=6)


def test_the_weights_that_a_module_says_it_uses_count():
    class Standardised(nn.Linear):
        @property
        def effective_weight(self) -> Tensor:
            return self.weight - self.weight.mean(1, keepdim=True)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.effective_weight, self.bias)

    layer = Standardised(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]]))  # minus the mean: 4 and 0 left
    found = measure(nn.Sequential(layer), torch.ones(1, 4))
    assert (found.effective, found.dense) == (4, 8)


def test_weights_changed_while_the_meter_listens_are_noticed():
    net = nn.Sequential(nn.Linear(4, 3))
    with SynopsMeter(net) as meter:
        net(torch.ones(1, 4))
        with torch.no_grad():
            net[0].weight[0] = 0
        net(torch.ones(1, 4))
    assert meter.result(1).effective == 12 + 8


def test_only_what_runs_is_counted_and_biases_are_not():
    net = nn.ModuleDict({"ran": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    with SynopsMeter(net) as meter:
        net["ran"](torch.zeros(5, 3))
        net["idle"](torch.zeros(0, 3))
    found = meter.result(5)
    assert (found.effective, found.dense) == (0, 6)
    assert found.layers["ran"].dense == 6 and found.layers.get("idle", Operations(0, 0, 0, 0, 0)).dense == 0


def test_fan_out_stays_exact_beyond_single_precision():
    assert fan_out(nn.Linear(1, 1), torch.ones(2**24 + 1, 1, dtype=torch.bool), torch.Size([1])).item() == 2**24 + 1


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_count_is_the_same_without_gradients_in_inference_mode_and_in_mixed_precision(context):
    net, x = nn.Sequential(pruned(nn.Conv2d(2, 3, 3, padding=1))), sparse(2, 2, 5, 5)
    with context(), SynopsMeter(net) as meter:
        net(x)
    assert meter.result(1).effective == conv2d_by_loops(x, net[0])[0]


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="not 0"):
        SynopsMeter(nn.Sequential()).result(0)


@pytest.mark.parametrize("options", [{"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "padding": 2, "stride": 2, "groups": 2}])
def test_nominal_operations_are_those_of_an_image_that_is_padded_beforehand(options):
    conv = nn.Conv2d(4, 6, **options)
    padded = nn.Conv2d(4, 6, **{**options, "padding": 0})
    x = sparse(2, 4, 7, 7)
    found = measure(nn.Sequential(conv), x, samples=2)
    wanted = measure(nn.Sequential(padded), F.pad(x, (options["padding"],) * 4), samples=2)
    assert found.nominal == wanted.dense == wanted.nominal > found.dense


@pytest.mark.parametrize("options", [{"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2}])
def test_a_transposed_convolution_counts_what_its_inputs_reach_as_other(options):
    layer, x = pruned(nn.ConvTranspose2d(4, 2, **options)), sparse(3, 4, 5, 5)
    ones = nn.ConvTranspose2d(4, 2, bias=False, **options).double()
    with torch.no_grad():
        ones.weight.copy_(layer.weight != 0)
        expected = ones(x.abs().double()).sum().item()  # every operation adds one
    found = measure(nn.Sequential(layer), x, samples=3)
    assert found.other == pytest.approx(expected / 3) and found.effective == 0


def test_a_module_says_what_work_it_does_besides():
    class Attention(nn.Module):
        def forward(self, x):
            return x @ x.transpose(-1, -2)

        def synops_other(self, inputs, output):
            return output.numel() * inputs[0].shape[-1]

    assert measure(nn.Sequential(Attention()), torch.ones(2, 3, 4), samples=2).other == 3 * 3 * 4
