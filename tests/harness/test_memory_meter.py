"""Saved-for-backward and transient bytes against counts by hand."""

import gc

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.meters.memory import SavedTensors, TransientPeak, optimizer_bytes, parameter_bytes
from harness.meters.resident import CudaPeak, HostPeak, reset_peak_resident

F32 = 4


def saved_by(net: nn.Module | None, run) -> SavedTensors:
    with SavedTensors(net) as meter:
        run()
    return meter


def unrolled(weight: Tensor, x: Tensor, steps: int) -> Tensor:
    state = x
    for _ in range(steps):
        state = torch.tanh(state * weight)
    return state.sum()


# Counts by hand ------------------------------------------------------------------------------------------------------


def test_a_chain_of_linear_layers_saves_the_input_of_each():
    net = nn.Sequential(nn.Linear(10, 20, bias=False), nn.Linear(20, 30, bias=False), nn.Linear(30, 5, bias=False))
    x = torch.randn(8, 10)
    assert saved_by(net, lambda: net(x).sum().backward()).peak == 8 * (10 + 20 + 30) * F32


def test_a_relu_shares_its_result_with_the_layer_that_follows():
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.randn(8, 10)
    # x for the first layer; the result of ReLU, for its own derivative and as the input of the second layer
    assert saved_by(net, lambda: net(x).sum().backward()).peak == 8 * (10 + 20) * F32


def test_a_convolution_network_saves_image_feature_map_and_flat_features_once():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    x = torch.randn(5, 3, 8, 8)
    # image; ReLU's result; output of the second convolution, seen flat by the linear layer (a view: the same storage)
    assert saved_by(net, lambda: net(x).sum().backward()).peak == 5 * (3 * 64 + 6 * 64 + 4 * 36) * F32


def test_a_custom_function_is_charged_for_save_for_backward():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, unused):
            ctx.save_for_backward(a)
            return a * a

        @staticmethod
        def backward(ctx, grad):
            return 2 * ctx.saved_tensors[0] * grad, None

    x = torch.randn(7, requires_grad=True)
    assert saved_by(None, lambda: Square.apply(x, torch.randn(100)).sum().backward()).peak == 7 * F32


def test_double_precision_counts_twice_as_much():
    def peak(dtype: torch.dtype) -> int:
        net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)).to(dtype)
        x = torch.randn(8, 10, dtype=dtype)
        return saved_by(net, lambda: net(x).sum().backward()).peak

    assert peak(torch.float64) == 2 * peak(torch.float32)


# What counts ---------------------------------------------------------------------------------------------------------


def test_views_of_one_storage_are_counted_once_and_in_full():
    x = torch.randn(100)
    weights = [torch.randn(10, requires_grad=True) for _ in range(3)]
    assert saved_by(None, lambda: sum((x[10 * i : 10 * i + 10] * w).sum() for i, w in enumerate(weights))).peak == 100 * F32


def test_an_expanded_input_is_counted_at_the_size_of_its_storage():
    x, w = torch.randn(6).expand(50, 6), torch.randn(6, requires_grad=True)
    assert saved_by(None, lambda: (x * w).sum()).peak == 6 * F32


def test_parameters_and_buffers_of_the_network_are_left_out_and_counted_without_it():
    net = nn.BatchNorm1d(4).double()
    x = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    held: dict[str, int] = {}

    def run(meter: SavedTensors, name: str) -> None:
        with meter:
            y = net.eval()(x)
            held[name] = meter.current
            del y

    run(SavedTensors(net), "with")
    run(SavedTensors(), "without")
    assert held["without"] - held["with"] == 3 * 4 * 8  # weight, running mean, running variance


def test_everything_is_freed_after_the_backward_pass():
    net = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5))
    x = torch.randn(8, 10)
    with SavedTensors(net) as meter:
        loss = net(x).sum()
        assert meter.current == 8 * (10 + 20) * F32
        loss.backward()
        assert meter.current == 0
    assert meter.peak == 8 * (10 + 20) * F32


def test_a_retained_graph_stays_counted_until_it_is_let_go():
    x, w = torch.randn(9), torch.randn(9, requires_grad=True)
    with SavedTensors() as meter:
        loss = (x * w).sum()
        loss.backward(retain_graph=True)
        assert meter.current == 9 * F32
        del loss
        assert meter.current == 0


def test_a_graph_that_outlives_the_context_still_counts_down():
    x, w = torch.randn(9), torch.randn(9, requires_grad=True)
    with SavedTensors() as meter:
        loss = (x * w).sum()
    assert meter.current == 9 * F32
    del loss
    assert meter.current == 0


def test_an_operation_that_saves_its_own_result_makes_no_reference_cycle():
    x = torch.randn(9, requires_grad=True)
    with SavedTensors() as meter:  # the context keeps the garbage collector still
        y = x.exp()
        assert meter.current == 9 * F32
        del y
        assert meter.current == 0


def test_the_garbage_collector_is_as_it_was_after_the_context():
    with SavedTensors():
        assert not gc.isenabled()
    assert gc.isenabled()


# Growth --------------------------------------------------------------------------------------------------------------


def test_unrolling_over_time_costs_in_proportion_to_the_steps():
    w, x = torch.randn(50, requires_grad=True), torch.randn(50)
    net = nn.ParameterList([w])
    peaks = [saved_by(net, lambda T=T: unrolled(net[0], x, T).backward()).peak for T in (4, 8, 16)]
    # per step the input of the product and the result of tanh; each result is the next input
    assert peaks == [(T + 1) * 50 * F32 for T in (4, 8, 16)]


def test_a_backward_pass_per_step_costs_the_same_for_any_number_of_steps():
    w = nn.Parameter(torch.randn(50))

    def online(steps: int) -> None:
        state = torch.ones(50)
        for _ in range(steps):
            out = torch.tanh(state * w)
            out.sum().backward()
            state = out.detach()

    peaks = {saved_by(nn.ParameterList([w]), lambda T=T: online(T)).peak for T in (2, 8, 32)}
    assert peaks == {2 * 50 * F32}  # one step: its input and the result of tanh


def test_checkpointing_is_charged_for_the_inputs_of_its_segments_only():
    net = nn.Sequential(*[nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh()) for _ in range(3)])

    def run(x: Tensor) -> None:
        for part in net:
            x = checkpoint(part, x, use_reentrant=False)
        x.sum().backward()

    x = torch.randn(8, 10, requires_grad=True)
    assert saved_by(net, lambda: run(x)).peak == 3 * 8 * 10 * F32


def test_five_repeats_count_the_same():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    x, y = torch.randn(6, 2, 8, 8), torch.randint(3, (6,))

    def run() -> None:
        nn.functional.cross_entropy(net(x), y).backward()

    saved = {saved_by(net, run).peak for _ in range(5)}
    transient = set()
    for _ in range(5):
        net.zero_grad()
        with TransientPeak() as meter:
            run()
        transient.add(meter.peak)
    assert len(saved) == 1 and len(transient) == 1


# Values --------------------------------------------------------------------------------------------------------------


def gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
    net.zero_grad()
    net(x).square().sum().backward()
    return [p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("meter", [SavedTensors, TransientPeak])
def test_gradients_are_bitwise_the_same_when_measured(meter):
    net = nn.Sequential(nn.Linear(10, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.randn(8, 10)
    plain = gradients(net, x)
    with meter():
        measured = gradients(net, x)
    assert all(torch.equal(a, b) for a, b in zip(plain, measured, strict=True))


def test_second_derivatives_pass_through_the_meter():
    x = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    with SavedTensors():
        (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 6 * x.detach())


def test_a_saved_tensor_changed_in_place_fails_as_it_would_without_the_meter():
    def run() -> None:
        w = torch.randn(3, requires_grad=True)
        x = torch.randn(3)
        loss = (w * x).sum()
        x.add_(1)
        loss.backward()

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        run()
    with pytest.raises(RuntimeError, match=r"shape \[3\].*modified in place"), SavedTensors():
        run()


# Transient peak ------------------------------------------------------------------------------------------------------


def test_the_transient_peak_adds_up_what_is_alive_at_once():
    with TransientPeak() as meter:
        a = torch.zeros(100)
        b = torch.zeros(50)
        del a
        c = torch.zeros(20)
        assert meter.current == (50 + 20) * F32
        del b, c
    assert meter.peak == 150 * F32 and meter.current == 0


def test_views_in_place_results_and_what_was_there_before_are_not_created():
    before = torch.zeros(100)
    with TransientPeak() as meter:
        before.add_(1).view(10, 10)[2].mul_(2)
        torch.add(before, before, out=before)
        assert meter.peak == 0
        made = torch.tensor([1.0, 2.0]).expand(30, 2)
        assert meter.peak == 2 * F32
        del made


def test_the_backward_pass_is_seen_and_storages_held_by_the_graph_alone_stay_alive():
    w = torch.zeros(1000, requires_grad=True)
    with TransientPeak() as meter:
        loss = w.exp().sum()  # the result of exp is held by the graph only
        gc.collect()
        assert meter.current == (1000 + 1) * F32
        loss.backward()
        # result of exp, loss, the one that backward starts from, and the gradient
        assert meter.peak == (1000 + 1 + 1 + 1000) * F32
        assert meter.current == (1 + 1000) * F32
        w.grad = None
        assert meter.current == 1 * F32


def test_the_transient_peak_of_an_online_rule_is_below_that_of_unrolling():
    w = nn.Parameter(torch.zeros(1000))
    x = torch.ones(1000)

    def peak(run) -> int:
        w.grad = None
        with TransientPeak() as meter:
            run()
        return meter.peak

    def online() -> None:
        for _ in range(16):
            unrolled(w, x, 1).backward()

    assert peak(online) < peak(lambda: unrolled(w, x, 16).backward()) / 3


# Parameters, optimiser, resident memory ------------------------------------------------------------------------------


def test_parameters_and_buffers_are_counted_and_shared_ones_once():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    net.append(net[0])
    assert parameter_bytes(net) == (16 + 2 * 4 + 2 * 4) * F32 + 8  # weight, affine, running statistics, number of batches (int64)


@pytest.mark.parametrize(
    ("kind", "options", "copies", "counters"),
    [(torch.optim.SGD, {}, 0, 0), (torch.optim.SGD, {"momentum": 0.9}, 1, 0), (torch.optim.Adam, {}, 2, 1)],
)
def test_optimiser_state_is_counted_by_its_tensors(kind, options, copies, counters):
    weight = nn.Parameter(torch.zeros(25))
    optimizer = kind([weight], lr=0.1, **options)
    assert optimizer_bytes(optimizer) == 0
    weight.sum().backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == (25 * copies + counters) * F32


def test_host_growth_shows_an_allocation_that_was_touched_and_freed():
    if not reset_peak_resident():
        pytest.skip("the peak resident set cannot be reset here")
    size = 64 * 2**20
    with HostPeak() as meter:
        torch.ones(size, dtype=torch.uint8)
    with HostPeak() as idle:
        pass
    assert meter.growth_bytes is not None and 0.9 * size < meter.growth_bytes < 2 * size
    assert idle.growth_bytes is not None and idle.growth_bytes < size / 4


def test_host_growth_is_none_where_the_system_tells_nothing(monkeypatch, tmp_path):
    from harness.meters import resident

    for name, value in (("STATUS", tmp_path / "none"), ("CLEAR_REFS", tmp_path / "no" / "file"), ("resource", None)):
        monkeypatch.setattr(resident, name, value)
    with HostPeak() as meter:
        pass
    assert meter.growth_bytes is None


def test_host_growth_is_none_below_an_earlier_peak_that_cannot_be_reset(monkeypatch, tmp_path):
    from harness.meters import resident

    status = tmp_path / "status"
    status.write_text("VmHWM:\t 900 kB\nVmRSS:\t 500 kB\n")
    monkeypatch.setattr(resident, "STATUS", status)
    monkeypatch.setattr(resident, "CLEAR_REFS", tmp_path / "no" / "file")
    with HostPeak() as below:
        pass
    with HostPeak() as above:
        status.write_text("VmHWM:\t 1000 kB\nVmRSS:\t 500 kB\n")
    assert below.growth_bytes is None
    assert above.growth_bytes == 500 * 1024


def test_cuda_peak_is_none_on_a_cpu():
    with CudaPeak(torch.device("cpu")) as meter:
        pass
    assert meter.peak_bytes is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_peak_is_above_what_was_resident_and_saved_bytes_are_those_of_the_cpu():
    device = torch.device("cuda")
    resident = torch.zeros(2**20, device=device)
    with CudaPeak(device) as meter:
        torch.zeros(2**22, device=device)
    assert meter.peak_bytes == 2**22 * F32 and len(resident)

    def peaks(on: str) -> tuple[int, int]:
        net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)).to(on)
        x = torch.randn(8, 10, device=on)
        saved = saved_by(net, lambda: net(x).sum().backward()).peak
        net.zero_grad()
        with TransientPeak() as transient:
            net(x).sum().backward()
        return saved, transient.peak

    assert peaks("cuda")[0] == peaks("cpu")[0]
    assert peaks("cuda")[1] >= sum(p.numel() for p in nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5)).parameters()) * F32
