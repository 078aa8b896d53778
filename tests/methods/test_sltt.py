"""SLTT against autograd on graphs written out here, in double precision; numbers are those of the card's list of tests."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counting_update import CountingUpdate
from torch import nn

from harness.loop import train
from harness.meters.agreement import agreement
from harness.meters.memory import SavedTensors
from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.nn.dropout import SequenceDropout
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.nf_resnet import DeepNormaliserFreeResNet
from methods.nn.norm import BatchNorm
from methods.nn.step_norm import StepBatchNorm
from methods.nn.surrogate import Rectangle, Sigmoid, Triangle
from methods.nn.synapse import Conv2d, DelayLine
from methods.ottt import Ottt
from methods.sltt import Sltt
from suites.classification import ClassificationTask

CLASSES = 4
OTTTS_NETWORK = {"norm": "sws", "surrogate": "sigmoid", "loss_target": "onehot"}


class Films(ClassificationTask):
    """Random films in which no two steps are alike, or with ``still`` images."""

    card = TaskCard("test/films", "", "", "", "", "")
    head = Head("classify", classes=CLASSES)

    def __init__(self, steps=5, shape=(2, 8, 8), widths=(3, 4), still=False):
        self.steps, self.input_shape, self.temporal = steps, shape, not still
        kind = "conv" if len(shape) == 3 else "sequence"
        self.budgets = {"smoke": Budget(Training(epochs=1, batch_size=6, lr=0.1), Backbone(kind, widths))}
        super().__init__()

    def load(self, split):
        drawn = torch.Generator().manual_seed(5)
        shape = (6, *([self.steps] if self.temporal else []), *self.input_shape)
        return Data(torch.randn(shape, generator=drawn, dtype=torch.float64), torch.arange(6) % CLASSES)


class Letters(Films):
    """An answer of its own at every step."""

    head = Head("per_step", classes=CLASSES)
    readout = "each"

    def load(self, split):
        drawn = torch.Generator().manual_seed(6)
        return Data(super().load(split).inputs, torch.randint(CLASSES, (6, self.steps), generator=drawn))

    def loss(self, output, targets, label_smoothing=0.0):
        return F.cross_entropy(output.flatten(0, 1), targets.flatten())


def gradients(net):
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def make(method=Sltt, task=None, seed=3, **options):
    """Return method, network in training mode and a batch, in double precision."""
    bound = method(task or Films(), options)
    torch.manual_seed(seed)
    net = bound.build().double().train()
    with torch.no_grad():
        for p in net.parameters():  # away from the special values that some start from
            p += 0.1 * torch.randn_like(p)
    return bound, net, next(bound.task.batches("train"))


def learn(bound, net, batch):
    """Return the gradients of one batch by the method's own step."""
    update = CountingUpdate(net)
    bound.step(net, batch, update)
    assert update.applied == 1
    return gradients(net)


def bptt(bound, net, batch):
    net.zero_grad()
    bound.exact_loss(net, batch).backward()
    return gradients(net)


def error(a, b):
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def cosine(a, b):
    one, two = (torch.cat([g[name].flatten() for name in a]) for g in (a, b))
    return F.cosine_similarity(one, two, dim=0).item()


def written_out(net, batch, leak, detach_reset=True):
    """Return the gradients of the loss of the card, on a graph in which the potential is detached where the neuron is charged."""
    layers = [module for module in net.backbone.modules() if isinstance(module, Layer)]
    potentials = [0.0] * len(layers)
    inputs = batch.inputs.transpose(0, 1)
    total = 0.0
    for x in inputs:
        for depth, layer in enumerate(layers):
            current = F.conv2d(x, layer.synapse.weight, padding=1)
            mean, var = current.mean((0, 2, 3), keepdim=True), current.var((0, 2, 3), unbiased=False, keepdim=True)
            weight, bias = (p.view(1, -1, 1, 1) for p in (layer.norm.weight, layer.norm.bias))
            u = leak * (potentials[depth].detach() if torch.is_tensor(potentials[depth]) else 0.0)
            u = u + weight * (current - mean) / torch.sqrt(var + 1e-5) + bias
            d = u - 1
            shape = d - d * d.abs() / 2  # its derivative is 1 - |d|
            soft = torch.where(d.abs() < 1, shape, shape.detach())
            s = (u >= 1).to(u.dtype) + (soft - soft.detach())
            potentials[depth] = u - (s.detach() if detach_reset else s)
            x = F.avg_pool2d(s, 2) if depth % 2 else s
        o = net.head.readout(x.flatten(1))
        onehot = torch.eye(CLASSES, dtype=o.dtype)[batch.targets]
        total = total + 0.95 * -(o.log_softmax(1) * onehot).sum(1).mean() + 0.05 * ((o - 1) ** 2).mean()
    net.zero_grad()
    (total / len(inputs)).backward()
    return gradients(net)


@pytest.mark.parametrize("leak", [1 - 1 / 1.1, 0.5])
def test_1_gradient_is_that_of_the_graph_with_the_potential_detached_at_charge(leak):
    bound, net, batch = make(leak=leak)
    assert error(learn(bound, net, batch), written_out(net, batch, leak)) < 1e-12


def test_1_gradient_is_the_sum_over_steps_of_error_times_input_of_that_step():
    bound, net, batch = make()
    synapses = {name: module for name, module in net.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    seen = {name: [] for name in synapses}

    def keep(name):
        def hook(module, given, result):
            result.retain_grad()
            seen[name].append((given[0][0].detach(), result))

        return hook

    for name, module in synapses.items():
        module.register_forward_hook(keep(name))
    found = learn(bound, net, batch)
    for name, module in synapses.items():
        wanted = torch.zeros_like(module.weight)
        for s_in, current in seen[name]:
            delta = current.grad[0]
            if isinstance(module, nn.Linear):
                wanted += torch.einsum("bo,bi->oi", delta, s_in)
                continue
            patches = F.unfold(s_in, 3, padding=1)
            wanted += torch.einsum("bol,bil->oi", delta.flatten(2), patches).view_as(wanted)
        assert len(seen[name]) == 5
        assert (found[f"{name}.weight"] - wanted).abs().max() < 1e-12


def test_1_the_path_through_time_is_what_is_missing():
    bound, net, batch = make(leak=0.5)
    assert error(learn(bound, net, batch), bptt(bound, net, batch)) > 1e-4


@pytest.mark.parametrize(("leak", "steps"), [(0.0, 4), (0.5, 1)])
def test_2_without_memory_or_with_one_step_sltt_bptt_and_ottt_agree(leak, steps):
    bound, net, batch = make(task=Films(steps), leak=leak, **OTTTS_NETWORK)
    found = learn(bound, net, batch)
    assert error(found, bptt(bound, net, batch)) < 1e-13
    other = Ottt(bound.task, {"leak": leak})
    traced = other.build().double().train()
    traced.load_state_dict(dict(zip(traced.state_dict(), net.state_dict().values(), strict=True)))
    by_traces = learn(other, traced, batch)
    assert error(found, dict(zip(found, by_traces.values(), strict=True))) < 1e-13


def test_2_with_memory_the_traces_of_ottt_make_a_difference():
    bound, net, batch = make(leak=0.5, **OTTTS_NETWORK)
    other = Ottt(bound.task, {"leak": 0.5})
    traced = other.build().double().train()
    traced.load_state_dict(dict(zip(traced.state_dict(), net.state_dict().values(), strict=True)))
    found, by_traces = learn(bound, net, batch), learn(other, traced, batch)
    assert error(found, dict(zip(found, by_traces.values(), strict=True))) > 1e-3


@pytest.mark.parametrize("norm", ["step", "sws"])
def test_3_cosine_to_bptt_falls_with_the_leak_and_is_near_one_for_the_papers(norm):
    cosines = []
    for leak in (1 - 1 / 1.1, 0.5, 0.9):
        bound, net, batch = make(task=Films(6, widths=(8,)), leak=leak, norm=norm)  # two hidden layers
        cosines.append(cosine(learn(bound, net, batch), bptt(bound, net, batch)))
    assert cosines[0] > 0.99
    assert cosines[0] > cosines[1] > cosines[2]


def test_3_the_harness_measures_that_cosine_weight_by_weight():
    bound, net, batch = make(leak=0.5)
    found = {each.name: each.cosine for each in agreement(bound, net, batch)}
    rule, exact = learn(bound, net, batch), bptt(bound, net, batch)
    assert found.keys() == rule.keys()
    for name, value in found.items():
        assert value == pytest.approx(F.cosine_similarity(rule[name].flatten(), exact[name].flatten(), dim=0).item(), abs=1e-9)
    bound, net, batch = make(rule="bptt")
    assert agreement(bound, net, batch) == []


def peak(steps, **options):
    bound, net, batch = make(task=Films(steps), **options)
    with SavedTensors(net) as meter:
        bound.step(net, batch, CountingUpdate(net))
    return meter.peak


def test_5_bytes_held_for_backward_do_not_depend_on_the_number_of_steps():
    assert len({peak(steps) for steps in (2, 4, 8, 16, 32)}) == 1


def test_5_bytes_held_by_the_baseline_grow_with_every_step():
    two, four, eight = (peak(steps, rule="bptt") for steps in (2, 4, 8))
    assert eight - four == 2 * (four - two) > 0
    assert four > 1.8 * peak(4) * 2


def test_7_the_reset_takes_no_part_in_the_gradient():
    bound, net, batch = make()
    found = learn(bound, net, batch)
    for module in net.modules():
        if isinstance(module, LIF):
            assert module.detach_reset
            module.detach_reset = False
    assert error(found, learn(bound, net, batch)) == 0
    assert error(found, written_out(net, batch, 1 - 1 / 1.1, detach_reset=False)) < 1e-12


def test_baseline_is_back_propagation_through_time_on_the_same_network_and_loss():
    bound, net, batch = make(rule="bptt", leak=0.5)
    update = CountingUpdate(net)
    loss = bound.step(net, batch, update)
    found = gradients(net)
    assert (update.backwards, update.applied) == (1, 1)
    twin, net, batch = make(leak=0.5)
    assert error(found, bptt(twin, net, batch)) < 1e-14
    assert loss.item() == pytest.approx(twin.step(net, batch, CountingUpdate(net)).item())
    assert bound.report(net)["backward_calls"] == 1
    assert bound.report(net)["steps_per_backward"] == 5
    assert twin.report(net)["backward_calls"] == 5


def test_normalisation_sees_one_step_at_a_time_and_remembers_every_one():
    bound, net, batch = make()
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    assert norms
    assert all(type(norm) is StepBatchNorm for norm in norms)
    first = net.backbone.stages[0][0]
    bound.step(net, batch, CountingUpdate(net))
    mean = torch.zeros(3, dtype=torch.float64)
    for x in batch.inputs.transpose(0, 1):
        mean = 0.9 * mean + 0.1 * F.conv2d(x, first.synapse.weight, padding=1).mean((0, 2, 3))
    assert torch.allclose(first.norm.running_mean, mean.detach())


def test_loss_pulls_outputs_to_one_or_to_the_class():
    output, targets = torch.randn(3, CLASSES), torch.tensor([2, 0, 1])
    entropy = F.cross_entropy(output, targets)
    onehot = F.one_hot(targets, CLASSES).float()
    for target, wanted in (("ones", ((output - 1) ** 2).mean()), ("onehot", ((output - onehot) ** 2).mean())):
        found = Sltt(Films(), {"loss_target": target, "loss_alpha": 0.3}).loss(output, targets)
        assert torch.allclose(found, 0.7 * entropy + 0.3 * wanted)
    assert torch.equal(Sltt(Films(), {"loss_alpha": 0.0}).loss(output, targets), entropy)


@pytest.mark.parametrize(("name", "kind"), [("triangle", Triangle()), ("sigmoid", Sigmoid(4.0)), ("rectangle", Rectangle(1.0))])
def test_surrogates_are_those_of_the_official_code(name, kind):
    lif = Sltt(Films(), {"surrogate": name}).neuron(3)
    assert lif.surrogate == kind
    assert (lif.leak, lif.threshold, lif.reset, lif.strict, lif.scale_input) == (pytest.approx(1 - 1 / 1.1), 1.0, "soft", False, False)


def test_every_step_is_trained_on_its_own_answer_where_it_has_one():
    bound, net, batch = make(task=Letters(4))
    found = learn(bound, net, batch)
    net.zero_grad()
    outputs = net(batch.inputs.transpose(0, 1))
    losses = [F.cross_entropy(outputs[t], batch.targets[:, t]) for t in range(4)]
    wanted = sum(torch.autograd.grad(loss, net.head.readout.weight, retain_graph=True)[0] for loss in losses) / 4
    assert (found["head.readout.weight"] - wanted).abs().max() < 1e-12  # exact: the read-out has no memory
    assert bound.step(net, batch, CountingUpdate(net)).item() == pytest.approx(sum(losses).item() / 4)


def test_errors_do_not_pass_to_past_inputs_of_a_delay_line():
    bound, net, batch = make(task=Films(6, (3,), (8, 8)))
    found = learn(bound, net, batch)
    assert all(grad.isfinite().all() for grad in found.values())
    first = next(module for module in net.modules() if isinstance(module, DelayLine))
    assert found["backbone.layers.0.synapse.conv.weight"].shape == first.conv.weight.shape
    assert cosine(found, bptt(bound, net, batch)) < 0.999


def test_dropout_keeps_one_mask_for_a_batch_and_sits_where_the_network_wants_it():
    plain = make(dropout=0.5)[1]
    drops = [module for module in plain.modules() if isinstance(module, SequenceDropout)]
    assert [drop.p for drop in drops] == [0.5] * 4
    net = Sltt(Films(), {"network": "resnet18", "dropout": 0.5}).build()
    assert sum(isinstance(module, SequenceDropout) for module in net.modules()) == 8  # once per block
    bound, net, batch = make(dropout=0.5, rule="sltt", leak=0.0)
    torch.manual_seed(1)
    found = learn(bound, net, batch)
    torch.manual_seed(1)
    assert error(found, bptt(bound, net, batch)) < 1e-13  # the mask of the whole sequence


def test_first_stage_has_one_step_and_the_second_goes_on_with_all():
    bound = Sltt(Films(4, still=True), {"one_step_share": 0.75, "fine_lr": 0.2, "fine_weight_decay": 0.5}, training={"epochs": 4})
    torch.manual_seed(0)
    net = bound.build().double()
    first, second = bound.phases(net)
    assert (first.epochs, second.epochs) == (3, 1)
    assert first.training is None
    assert (second.training.lr, second.training.weight_decay) == (pytest.approx(0.02), 0.5)
    assert len(first.predict(net, torch.randn(2, 2, 8, 8, dtype=torch.float64)).outputs) == 1
    seen = []
    net.register_forward_hook(lambda module, given, result: seen.append(len(result)) if module.training else None)
    traces = train(bound, net, seed=0).traces
    assert [trace.phase for trace in traces] == ["one_step"] * 3 + ["train"]
    assert seen == [1] * 3 + [1] * 4
    with pytest.raises(UsageError, match="one_step_share = 0.5 is for static data"):
        Sltt(Films(), {"one_step_share": 0.5})


def convolutions(net):
    return [module for module in net.modules() if isinstance(module, Conv2d)]


def test_resnet18_has_the_published_layers():
    net = Sltt(Films(1, (3, 32, 32)), {"network": "resnet18"}).build()
    stem, *others = convolutions(net)
    assert stem.bias is None
    assert all(conv.bias is not None for conv in others)
    assert [conv.out_channels for conv in others if conv.kernel_size == (3, 3)] == [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4
    assert [conv.out_channels for conv in others if conv.kernel_size == (1, 1)] == [128, 256, 512]
    assert [level.size for level in net.backbone.levels] == [(32, 32), (16, 16), (8, 8), (4, 4), (1, 1)]
    assert net.head.readout.in_features == 512
    assert sum(isinstance(module, LIF) for module in net.modules()) == 17


def test_vgg11_has_the_published_layers_and_repeats_its_last_map():
    net = Sltt(Films(1, (2, 48, 48)), {"network": "vgg11", "dropout": 0.3}).build()
    assert [conv.out_channels for conv in convolutions(net)] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert net.head.readout.in_features == 512 * 49
    net.eval()
    with torch.no_grad():
        *_, before, last = net.backbone(torch.randn(1, 1, 2, 48, 48))
    assert before.shape == (1, 1, 512, 1, 1)
    assert torch.equal(last, before.expand(1, 1, 512, 7, 7))


def test_imagenet_networks_are_normaliser_free_and_start_silent():
    with torch.device("meta"):
        nets = {d: Sltt(Films(1, (3, 64, 64)), {"network": f"nf_resnet{d}", "norm": "sws"}).build() for d in ("34", "50", "101")}
    assert all(isinstance(net.backbone, DeepNormaliserFreeResNet) for net in nets.values())
    assert [net.head.readout.in_features for net in nets.values()] == [512, 2048, 2048]
    assert not any(isinstance(module, BatchNorm) for module in nets["34"].modules())
    bound = Sltt(Films(1), {"network": "nf_resnet34", "norm": "sws"})
    assert not bound.readout(8, 4).weight.any()
    with pytest.raises(UsageError, match="norm = 'step' does not fit; allowed: 'sws'"):
        Sltt(Films(), {"network": "nf_resnet34"})


def test_recipes_are_the_published_ones():
    registries = Registries()

    def settings(name, **options):
        return Sltt(registries.task(name, "paper"), options, track="recipe")

    cifar, hundred = settings("static/cifar10"), settings("static/cifar100")
    assert (cifar.training.epochs, cifar.training.batch_size, cifar.training.lr, cifar.training.weight_decay) == (200, 128, 0.1, 5e-5)
    assert (cifar.steps, cifar.options.network, cifar.options.loss_target) == (6, "resnet18", "ones")
    assert hundred.training.weight_decay == 5e-4
    dvs, gesture = settings("events/cifar10-dvs"), settings("events/dvs-gesture")
    assert (dvs.training.lr, dvs.training.epochs, dvs.options.dropout, dvs.options.loss_target) == (0.05, 300, 0.3, "onehot")
    assert (gesture.training.lr, gesture.training.batch_size, gesture.options.dropout) == (0.1, 16, 0.4)
    assert gesture.options.loss_target == "ones"
    assert (dvs.options.network, gesture.options.network) == ("vgg11", "vgg11")
    imagenet = settings("static/imagenet")
    first, second = imagenet.phases(nn.Identity())
    assert (first.epochs, imagenet.training.lr, imagenet.training.weight_decay, imagenet.training.batch_size) == (100, 0.1, 1e-5, 256)
    assert (second.epochs, second.training.lr, second.training.weight_decay) == (30, pytest.approx(0.001), 0.0)
    assert (imagenet.options.network, imagenet.options.loss_alpha, imagenet.steps) == ("nf_resnet34", 0.0, 6)
    assert settings("static/imagenet", network="nf_resnet50").options.network == "nf_resnet50"
    assert settings("sequences/adding").options.network == "task"
