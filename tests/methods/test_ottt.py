"""OTTT against autograd on graphs written out here, in double precision; numbers are those of the card's list of tests."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.nn.drop_path import DropPath
from methods.nn.dropout import SequenceDropout
from methods.nn.feedback_vgg import FeedbackVgg
from methods.nn.nf_block import NormaliserFreeBlock
from methods.nn.nf_resnet import DeepNormaliserFreeResNet
from methods.nn.stepping import stepping
from methods.nn.synapse import Conv2d, DelayLine
from methods.nn.traced import Traced
from methods.nn.vgg import Vgg
from methods.nn.weight_standardisation import SPIKE_SCALE, StandardisedConv2d, standardise
from methods.ottt import Ottt
from methods.stbp import Stbp
from suites.classification import ClassificationTask

CLASSES = 4
SAME_NETWORK = {"norm": "sws", "surrogate": "sigmoid", "reset": "soft"}


class Clips(ClassificationTask):
    """Random films: no two steps are alike."""

    card = TaskCard("test/clips", "", "", "", "", "")
    head = Head("classify", classes=CLASSES)
    temporal = True

    def __init__(self, steps, shape=(2, 8, 8), widths=(3, 4)):
        self.steps, self.input_shape = steps, shape
        kind = "conv" if len(shape) == 3 else "sequence"
        self.budgets = {"smoke": Budget(Training(epochs=1), Backbone(kind, widths))}
        super().__init__()

    def load(self, split):
        drawn = torch.Generator().manual_seed(5)
        inputs = torch.randn(6, self.steps, *self.input_shape, generator=drawn, dtype=torch.float64)
        return Data(inputs, torch.arange(6) % CLASSES)


class Recorder:
    """An optimiser that keeps the gradients of every update and walks down them."""

    def __init__(self, net, lr=0.0):
        self.net, self.lr, self.seen = net, lr, []

    def zero_grad(self):
        self.net.zero_grad()

    def backward(self, loss):
        loss.backward()

    def apply(self):
        self.seen.append(gradients(self.net))
        with torch.no_grad():
            for p in self.net.parameters():
                p -= self.lr * p.grad

    def minimise(self, loss):
        self.zero_grad()
        self.backward(loss)
        self.apply()


def untraced(name):
    """Return the name that a parameter has where no trace wraps its synapse."""
    return name.replace("synapse.synapse", "synapse").replace("readout.synapse", "readout")


def gradients(net):
    return {untraced(name): p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def make(method=Ottt, steps=5, seed=3, shape=(2, 8, 8), widths=(3, 4), **options):
    """Return method, network in training mode and a batch, in double precision."""
    bound = method(Clips(steps, shape, widths), options)
    torch.manual_seed(seed)
    net = bound.build().double().train()
    with torch.no_grad():
        for p in net.parameters():  # away from the special values that biases and read-out start from
            p += 0.1 * torch.randn_like(p)
    return bound, net, next(bound.task.batches("train"))


def learn(bound, net, batch):
    """Return the gradients of one batch by the method's own step."""
    update = Recorder(net)
    bound.step(net, batch, update)
    (found,) = update.seen
    return found


def plain(synapse):
    return synapse.synapse if isinstance(synapse, Traced) else synapse


def layers_of(net):
    return [layer for stage in net.backbone.stages for layer in list(stage)[:2]]


def output_at(net, inputs, t, cut, leak=0.5, first="traced", effective=None):
    """Return output ``[B, K]`` of step ``t`` from formulas of the card. Of the steps before ``t``, ``cut`` takes the gradient from:

    "nothing" (BPTT with the reset detached), "spikes" (paths inside a layer stay: OTTT) or "potential" (none stay: SLTT).
    """
    signals = list(inputs[: t + 1])
    for depth, layer in enumerate(layers_of(net)):
        synapse = plain(layer.synapse)
        weight = (effective or written_out)(synapse)
        v, spikes = 0.0, []
        for k, signal in enumerate(signals):
            earlier = k < t and cut != "nothing"
            still = earlier and depth == 0 and first != "traced"
            current = F.conv2d(
                signal.detach() if earlier else signal,
                weight.detach() if still else weight,
                synapse.bias.detach() if earlier else synapse.bias,  # the card does not trace the constant input of the bias
                padding=1,
            )
            u = leak * v + current
            soft = torch.sigmoid(4 * (u - 1))
            s = (u >= 1).to(u.dtype) + (soft - soft.detach())  # the bracket is 0 exactly
            v = (u - s.detach()).detach() if cut == "potential" else u - s.detach()
            spikes.append(F.avg_pool2d(s, 2) if depth % 2 else s)
        signals = spikes
    readout = plain(net.head.readout)
    return F.linear(signals[t].flatten(1), 2.74 * readout.weight, readout.bias)


def written_out(synapse):
    """Return the weight of an sWS convolution, channel by channel."""
    rows = []
    for w, gain in zip(synapse.weight, synapse.gain, strict=True):
        n = w.numel()
        var = ((w - w.sum() / n) ** 2).sum() / (n - 1)
        rows.append(gain * (w - w.sum() / n) / torch.sqrt(var * n + 1e-4))
    return torch.stack(rows) * synapse.input_scale


def expected(net, batch, cut, alpha=0.05, **settings):
    """Return the gradients of the sum of the steps' losses on the graph of ``output_at``."""
    inputs = batch.inputs.transpose(0, 1)
    net.zero_grad()
    for t in range(len(inputs)):
        o = output_at(net, inputs, t, cut, **settings)
        onehot = torch.eye(CLASSES, dtype=o.dtype)[batch.targets]
        loss = (1 - alpha) * -(o.log_softmax(1) * onehot).sum(1).mean() + alpha * ((o - onehot) ** 2).mean()
        (loss / len(inputs)).backward()
    return gradients(net)


def error(a, b, names=None):
    names = names or a.keys()
    return max((a[name] - b[name]).abs().max().item() for name in names)


def test_1_gradient_is_the_sum_of_path_limited_autograd_over_the_steps():
    bound, net, batch = make(first_trace=True, readout_trace=False)
    found, wanted = learn(bound, net, batch), expected(net, batch, "spikes")
    assert found.keys() == wanted.keys()
    assert error(found, wanted) < 1e-12


def test_1_untraced_first_synapse_sees_the_input_of_its_step():
    bound, net, batch = make(readout_trace=False)
    assert error(learn(bound, net, batch), expected(net, batch, "spikes", first="untraced")) < 1e-12


def test_1_cutting_the_potential_instead_does_not_give_that_gradient():
    bound, net, batch = make(first_trace=True, readout_trace=False)
    assert error(learn(bound, net, batch), expected(net, batch, "potential")) > 1e-3


def test_2_last_hidden_weight_has_the_gradient_of_full_bptt_and_the_first_has_not():
    bound, net, batch = make(first_trace=True, readout_trace=False)
    found, bptt = learn(bound, net, batch), expected(net, batch, "nothing")
    last = ["backbone.stages.1.1.synapse.weight", "backbone.stages.1.1.synapse.gain"]
    assert error(found, bptt, last) < 1e-12
    assert error(found, bptt, ["backbone.stages.0.0.synapse.weight"]) > 1e-5


@pytest.mark.parametrize(("leak", "steps"), [(0.0, 4), (0.5, 1)])
def test_3_without_memory_or_with_one_step_ottt_sltt_and_bptt_agree(leak, steps):
    bound, net, batch = make(steps=steps, leak=leak)
    found = learn(bound, net, batch)
    for cut in ("nothing", "spikes", "potential"):
        assert error(found, expected(net, batch, cut, leak=leak)) < 1e-12


def test_4_spikes_and_outputs_are_bitwise_those_of_a_plain_lif_network():
    bound, net, batch = make(first_trace=True)
    inputs = batch.inputs.transpose(0, 1)
    spikes = []
    for layer in layers_of(net):
        layer.neuron.register_forward_hook(lambda module, given, result: spikes.append(result.detach()))
    with stepping(net, detach=True):
        found = [net(now)[0].detach() for now in inputs.split(1)]
    for t, output in enumerate(found):
        assert torch.equal(output, output_at(net, inputs, t, "nothing", effective=lambda synapse: synapse.effective_weight))
    assert all(((s == 0) | (s == 1)).all() for s in spikes)
    assert all(sum(s.sum() for s in spikes[depth::4]) > 0 for depth in range(4))


class SavedBytes:
    """Peak bytes of distinct storages that autograd holds, parameters left out."""

    def __init__(self, net):
        self.own = {p.untyped_storage().data_ptr() for p in net.parameters()}
        self.held, self.now, self.peak = {}, 0, 0

    def pack(self, tensor):
        return Handle(self, tensor)


class Handle:
    def __init__(self, meter, tensor):
        storage = tensor.untyped_storage()
        self.meter, self.key, self.bytes = meter, storage.data_ptr(), storage.nbytes()
        self.tensor = tensor.detach()
        if self.key in meter.own:
            return
        meter.held[self.key] = meter.held.get(self.key, 0) + 1
        if meter.held[self.key] == 1:
            meter.now += self.bytes
            meter.peak = max(meter.peak, meter.now)

    def __del__(self):
        if self.key in self.meter.own:
            return
        self.meter.held[self.key] -= 1
        if self.meter.held[self.key] == 0:
            del self.meter.held[self.key]
            self.meter.now -= self.bytes


def saved_bytes(method, steps, **options):
    bound, net, batch = make(method, steps=steps, **options)
    meter = SavedBytes(net)
    with torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda handle: handle.tensor):
        bound.step(net, batch, Recorder(net))
    return meter.peak


def test_5_bytes_held_for_backward_do_not_depend_on_the_number_of_steps():
    assert len({saved_bytes(Ottt, steps) for steps in (2, 4, 8, 16, 32)}) == 1


def test_5_bytes_held_by_bptt_on_the_same_network_grow_with_every_step():
    two, four, eight, sixteen = (saved_bytes(Stbp, steps, **SAME_NETWORK) for steps in (2, 4, 8, 16))
    assert eight - four == 2 * (four - two)
    assert sixteen - eight == 4 * (four - two)


def test_5_one_step_of_ottt_holds_what_bptt_holds_per_step():
    assert saved_bytes(Ottt, 8) == pytest.approx(saved_bytes(Stbp, 1, **SAME_NETWORK), rel=0.01)


def test_6_gradients_of_the_online_updates_sum_to_the_accumulated_one():
    bound, net, batch = make()
    whole = learn(bound, net, batch)
    bound, net, batch = make(update="online")
    update = Recorder(net, lr=0.0)
    bound.step(net, batch, update)
    summed = {name: sum(part[name] for part in update.seen) for name in whole}
    assert error(whole, summed) < 1e-12


def test_6_online_variant_updates_once_per_step():
    bound, net, batch = make(steps=7, update="online")
    before = [p.clone() for p in net.parameters()]
    update = Recorder(net, lr=0.1)
    bound.step(net, batch, update)
    assert len(update.seen) == 7
    assert all(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_7_standardised_weight_has_mean_zero_and_variance_of_the_gain():
    torch.manual_seed(0)
    conv = StandardisedConv2d(8, 6, 3).double()
    gain = torch.rand(6, dtype=torch.float64) + 0.5
    weight = standardise(conv.weight, gain).flatten(1)
    assert weight.mean(1).abs().max() < 1e-6
    assert (weight.var(1) * 72 - gain**2).abs().max() < 1e-3
    assert torch.allclose(conv.effective_weight, SPIKE_SCALE * standardise(conv.weight, torch.ones(6, dtype=torch.float64)))


def test_7_nf_block_is_the_identity_at_the_start_where_the_shape_stays():
    bound, _, _ = make()
    x = torch.randn(3, 2, 5, 8, 8)
    assert torch.equal(NormaliserFreeBlock(5, 5, 1, 1.0, bound)(x), x)
    halved = NormaliserFreeBlock(5, 6, 2, 1.08, bound)
    assert halved(x).shape == (3, 2, 6, 4, 4)
    assert halved.variance_out == pytest.approx(1.04)


def test_8_readout_trace_changes_the_gradient_of_the_readout_weight_alone():
    with_trace, without = (learn(*make(readout_trace=wanted)) for wanted in (True, False))
    changed = {name for name in with_trace if not torch.equal(with_trace[name], without[name])}
    assert changed == {"head.readout.weight"}


def test_readout_weight_learns_from_the_trace_of_its_input():
    bound, net, batch = make(steps=3)
    seen = []
    net.head.readout.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()[0]))
    outputs = []

    def keep(module, given, result):
        result.retain_grad()
        outputs.append(result)

    net.head.readout.register_forward_hook(keep)
    found = learn(bound, net, batch)["head.readout.weight"]
    traces = [sum(0.5 ** (t - k) * seen[k] for k in range(t + 1)) for t in range(3)]
    wanted = sum(o.grad[0].T @ a for o, a in zip(outputs, traces, strict=True)) * 2.74
    assert (found - wanted).abs().max() < 1e-12


def test_spike_scale_gives_unit_variance_to_the_spikes_of_normal_currents():
    chance = 1 - torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(1.0))
    assert pytest.approx(1 / (chance * (1 - chance)).sqrt().item(), abs=0.005) == SPIKE_SCALE


def test_delay_line_learns_from_a_trace_per_tap():
    torch.manual_seed(1)
    line = Traced(DelayLine(3, 2, taps=3, dilation=2), leak=0.5).double().train()
    x = torch.randn(7, 4, 3, dtype=torch.float64, requires_grad=True)
    delta = torch.randn(7, 4, 2, dtype=torch.float64)
    trace = [sum(0.5 ** (t - k) * x[k].detach() for k in range(t + 1)) for t in range(7)]
    wanted = torch.zeros(2, 3, 3, dtype=torch.float64)
    weight = line.synapse.conv.weight
    with stepping(line, detach=True):
        found = torch.cat([line(now) for now in x.split(1)])
    found.backward(delta)
    for t in range(7):
        for tap, delay in enumerate((4, 2, 0)):
            if t >= delay:
                wanted[:, :, tap] += delta[t].T @ trace[t - delay]
    assert (weight.grad - wanted).abs().max() < 1e-12
    assert (x.grad - delta @ weight[:, :, -1]).abs().max() < 1e-12
    assert (line.bias.grad - delta.sum((0, 1))).abs().max() < 1e-12
    assert (found - line.eval()(x)).abs().max() < 1e-12


def test_sequences_and_detectors_are_learned_too():
    bound, net, batch = make(shape=(3,), widths=(8, 8))
    assert all(grad.isfinite().all() for grad in learn(bound, net, batch).values())
    task = Clips(3, widths=(4, 4))
    task.head = Head("detect", classes=2, strides=(2, 4))
    task.loss = lambda output, targets, smoothing: output.square().mean()
    bound = Ottt(task)
    net = bound.build().double().train()
    assert learn(bound, net, next(task.batches("train"))).keys() == {untraced(name) for name, _ in net.named_parameters()}


def test_whole_sequence_in_one_call_is_back_propagation_through_time():
    bound, net, batch = make()
    net.zero_grad()
    outputs = net(batch.inputs.transpose(0, 1))
    sum(bound.loss(output, batch.targets) / len(outputs) for output in outputs).backward()
    found = gradients(net)
    wanted = expected(net, batch, "nothing")
    assert error(found, wanted) < 1e-12


def test_no_trace_is_kept_in_evaluation_nor_after_a_batch():
    bound, net, batch = make()
    learn(bound, net, batch)
    traced = [module for module in net.modules() if isinstance(module, Traced)]
    assert all(module.carried() is None for module in traced)
    with stepping(net.eval(), detach=True), torch.no_grad():
        steps = torch.cat([net(now) for now in batch.inputs.transpose(0, 1).split(1)])
        assert all(module.carried() is None for module in traced)
    assert torch.allclose(bound.predict(net, batch.inputs).outputs, bound.task.answer(steps), atol=1e-12)


def test_dropout_keeps_one_mask_for_all_steps_and_the_trace_follows_it():
    torch.manual_seed(0)
    drop = SequenceDropout(0.5).train()
    with stepping(drop):
        first, second = (drop(torch.ones(1, 2, 50)) for _ in range(2))
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(drop.eval()(first), first)
    bound, net, batch = make(dropout=0.5)
    assert all(grad.isfinite().all() for grad in learn(bound, net, batch).values())


def test_stbp_with_sws_is_the_same_network():
    bound, net, batch = make()
    twin = Stbp(bound.task, SAME_NETWORK).build().double()
    twin.load_state_dict({untraced(name): p for name, p in net.state_dict().items()})
    inputs = batch.inputs.transpose(0, 1)
    assert torch.equal(net.eval()(inputs), twin.eval()(inputs))


def test_nf_resnet_answers_and_learns():
    bound, net, batch = make(steps=2, network="nf_resnet")
    assert bound.predict(net.eval(), batch.inputs).outputs.shape == (2, 6, CLASSES)
    assert all(grad.isfinite().all() for grad in learn(bound, net.train(), batch).values())


def test_vgg_has_the_published_layers():
    net = Ottt(Clips(1), {"network": "vgg"}).build()
    convolutions = [module for module in net.modules() if isinstance(module, StandardisedConv2d)]
    assert [conv.out_channels for conv in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert [conv.input_scale for conv in convolutions] == [1.0] + [2.74] * 7
    assert (net.backbone.levels[-1].features, net.head.readout.synapse.in_features) == (512, 512)


def test_vgg_hands_out_a_level_per_pooling_and_the_last():
    bound, _, _ = make()
    net = Vgg((2, 8, 8), (3, "P", 4, "P", 5), bound, hidden=7)
    features = net(torch.randn(2, 3, 2, 8, 8))
    assert [tuple(found.shape[2:]) for found in features] == [(3, 4, 4), (4, 2, 2), (7, 1, 1)]
    assert [(level.channels, *level.size) for level in net.levels] == [(3, 4, 4), (4, 2, 2), (7, 1, 1)]
    with pytest.raises(ValueError, match="cannot be halved 4 times"):
        Vgg((2, 8, 8), (3, "P", "P", "P", "P"), bound)


@pytest.mark.parametrize(
    ("synapse", "shape"), [(Conv2d(3, 4, 3), (2, 5, 3, 6, 6)), (nn.Linear(3, 4), (2, 5, 3)), (DelayLine(3, 4, 2, 1), (2, 5, 3))]
)
def test_gradients_are_those_of_full_precision_up_to_rounding_under_autocast(synapse, shape):
    torch.manual_seed(0)
    traced = Traced(synapse, 0.5).train()
    x = torch.randn(shape)

    def weight_gradients():
        traced.zero_grad()
        with stepping(traced, detach=True):
            sum((traced(now).float() ** 2).sum() for now in x.split(1)).backward()
        return [p.grad for p in traced.parameters()]

    exact = weight_gradients()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = weight_gradients()
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm() < 0.02 * a.norm()


def test_what_cannot_be_traced_is_refused():
    with pytest.raises(TypeError, match="Sequential cannot be traced; allowed: Conv2d, Linear, DelayLine"):
        Traced(nn.Sequential(), 0.5)
    with pytest.raises(ValueError, match="zero padding"):
        Traced(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), 0.5)
    conv = Traced(Conv2d(1, 1, 3, padding=1), 0.5).train()
    with stepping(conv, detach=True), pytest.raises(ValueError, match="one step per call, not 2"):
        conv(torch.zeros(2, 1, 1, 4, 4))
    with pytest.raises(ValueError, match="fan-in of 1"):
        StandardisedConv2d(1, 4, 1)
    with pytest.raises(UsageError, match="update"):
        Ottt(Clips(2), {"update": "sometimes"})


def test_recipe_is_the_published_one():
    task = Clips(10)
    task.budget_name = "paper"
    bound = Ottt(task, track="recipe")
    assert (bound.training.optimizer, bound.training.lr, bound.training.epochs, bound.training.batch_size) == ("sgd", 0.1, 300, 128)
    assert (bound.options.network, bound.options.loss_alpha) == ("vgg", 0.05)
    assert Ottt(Clips(10, (3,), (8, 8)), track="recipe").options.network == "task"


# The feedback network, NF-ResNet-34, and options of them -------------------------------------------------------------


class SmallFeedback(Ottt):
    """VGG-F with fewer channels."""

    def backbone(self):
        return FeedbackVgg(self.task.input_shape, (3, "P", 4), self, self.feedback)


def feedback_output_at(net, inputs, t, cut):
    """Return output ``[B, K]`` of step ``t`` of the feedback network from formulas; ``cut`` as in ``output_at``, with one more path to cut.

    With "spikes" the error passes neither from layer to layer nor through the feedback of steps before ``t``.
    """
    backbone = net.backbone
    layers = [backbone.first, backbone.rest.stages[1][0]]
    potentials, last = [0.0, 0.0], None
    for k, x in enumerate(inputs[: t + 1]):
        earlier = k < t and cut == "spikes"
        signal = x
        for depth, layer in enumerate(layers):
            synapse = plain(layer.synapse)
            weight, bias = written_out(synapse), synapse.bias
            if earlier:
                signal, bias = signal.detach(), bias.detach()
                weight = weight.detach() if depth == 0 else weight  # the first synapse is not traced
            current = F.conv2d(signal, weight, bias, padding=1)
            if depth == 0 and last is not None:
                large = last.repeat_interleave(2, 2).repeat_interleave(2, 3)
                large = large.detach() if cut == "spikes" else large
                current = current + F.conv2d(large, 2.74 * plain(backbone.feedback).weight, padding=1)
            u = 0.5 * potentials[depth] + current
            soft = torch.sigmoid(4 * (u - 1))
            s = (u >= 1).to(u.dtype) + (soft - soft.detach())
            potentials[depth] = u - s.detach()
            signal = F.avg_pool2d(s, 2) if depth == 0 else s
        last = signal
    readout = plain(net.head.readout)
    return F.linear(last.mean((2, 3)), 2.74 * readout.weight, readout.bias)


@pytest.mark.parametrize("cut", ["spikes", "nothing"])
def test_feedback_network_learns_along_the_paths_of_its_rule(cut):
    bound, net, batch = make(SmallFeedback, steps=4, readout_trace=False)
    with torch.no_grad():
        net.backbone.rest.stages[1][0].synapse.synapse.bias += 1  # so that there are spikes to feed back
    inputs = batch.inputs.transpose(0, 1)
    if cut == "spikes":
        found = learn(bound, net, batch)
    else:
        net.zero_grad()
        bound.exact_loss(net, batch).backward()
        found = gradients(net)
    net.zero_grad()
    for t in range(4):
        (bound.loss(feedback_output_at(net, inputs, t, cut), batch.targets) / 4).backward()
    wanted = gradients(net)
    (name,) = [name for name in found if "feedback" in name]
    assert wanted[name].abs().max() > 1e-4
    assert error(found, wanted) < 1e-12


def test_feedback_starts_at_zero_and_the_rest_is_the_published_vgg():
    net = Ottt(Clips(1), {"network": "vgg_f"}).build()
    assert not net.backbone.feedback.synapse.weight.any()
    convolutions = [module for module in net.modules() if isinstance(module, StandardisedConv2d)]
    assert [conv.out_channels for conv in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert (net.backbone.feedback.synapse.in_channels, net.backbone.feedback.synapse.out_channels) == (512, 64)
    assert net.head.readout.synapse.in_features == 512


def test_5_bytes_held_by_the_feedback_network_do_not_depend_on_the_number_of_steps():
    assert len({saved_bytes(SmallFeedback, steps) for steps in (2, 4, 8)}) == 1


def test_nf_resnet34_traces_all_but_the_stem_and_starts_silent():
    with torch.device("meta"):
        net = Ottt(Clips(1, (3, 64, 64)), {"network": "nf_resnet34"}).build()
    assert isinstance(net.backbone, DeepNormaliserFreeResNet)
    traced = [name for name, module in net.named_modules() if isinstance(module, Traced)]
    assert len(traced) == 32 + 3 + 1
    assert not any("stem" in name for name in traced)
    readout = Ottt(Clips(1), {"network": "nf_resnet34"}).readout(8, 4).synapse
    assert not readout.weight.any()
    assert Ottt(Clips(1)).readout(8, 4).synapse.weight.any()


class SmallNfResNet(Ottt):
    """NF-ResNet with fewer blocks."""

    def backbone(self):
        return DeepNormaliserFreeResNet(self.task.input_shape, (1, 1), self, self.options.stochastic_depth)


def test_nf_resnet_learns_with_stochastic_depth_and_head_dropout():
    bound, net, batch = make(SmallNfResNet, steps=3, shape=(2, 16, 16), network="nf_resnet34", stochastic_depth=0.8, head_dropout=0.5)
    assert [module.p for module in net.modules() if isinstance(module, DropPath)] == pytest.approx([0.0, 0.4])
    drop, readout = net.head.readout
    assert (drop.p, readout.synapse.in_features) == (0.5, 128)
    assert all(grad.isfinite().all() for grad in learn(bound, net, batch).values())
    with pytest.raises(UsageError, match="stochastic_depth = 0.1 is for network = 'nf_resnet34', not for 'vgg'"):
        Ottt(Clips(1), {"network": "vgg", "stochastic_depth": 0.1})


def test_every_step_is_trained_on_its_own_answer_where_it_has_one():
    task = Clips(4)
    task.head, task.readout = Head("per_step", classes=CLASSES), "each"
    task.loss = lambda output, targets, smoothing: F.cross_entropy(output.flatten(0, 1), targets.flatten())
    bound = Ottt(task, {"readout_trace": False})
    torch.manual_seed(3)
    net = bound.build().double().train()
    batch = next(task.batches("train"))
    batch = batch._replace(targets=torch.randint(CLASSES, (6, 4)))
    found = learn(bound, net, batch)["head.readout.weight"]
    net.zero_grad()
    outputs = net(batch.inputs.transpose(0, 1))
    sum(F.cross_entropy(outputs[t], batch.targets[:, t]) / 4 for t in range(4)).backward()
    assert (found - gradients(net)["head.readout.weight"]).abs().max() < 1e-12  # exact: the read-out has no memory


def test_recipes_of_imagenet_and_events_are_the_published_ones():
    registries = Registries()
    imagenet, dvs, gesture = (
        Ottt(registries.task(name, "paper"), track="recipe") for name in ("static/imagenet", "events/cifar10-dvs", "events/dvs-gesture")
    )
    training = imagenet.training
    assert (training.epochs, training.batch_size, training.weight_decay, training.lr, training.schedule) == (100, 256, 2e-5, 0.1, "cosine")
    assert (imagenet.options.network, imagenet.options.loss_alpha, imagenet.steps) == ("nf_resnet34", 0.0, 6)
    assert (dvs.options.dropout, dvs.options.loss_alpha, dvs.options.network) == (0.1, 0.001, "vgg")
    assert (gesture.training.batch_size, gesture.training.optimizer, gesture.training.lr) == (16, "adam", 1e-3)
    assert gesture.options.dropout == 0
