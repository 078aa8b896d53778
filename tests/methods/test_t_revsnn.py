"""T-RevSNN: the numbered faithfulness tests of its card, and the plugin on tasks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness.meters.memory import SavedTensors
from harness.meters.synops import SynopsMeter
from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Backbone, Batch, Budget, Data, Head, TaskCard, Training
from methods.nn.potential_exit import PotentialExit
from methods.nn.reversible_steps import advance, still_statistics
from methods.nn.stepping import stepping
from methods.nn.temporal_reversible import Norm, Plan, StageStep, TemporalReversible
from methods.nn.turn_off import TurnOff
from methods.t_revsnn import NETS, TRevSnn
from suites.classification import ClassificationTask
from suites.static_vision import Digits

CLASSES = 4
TARGETS = torch.tensor([1, 2, 3])


def make(steps, dtype=torch.float64, widths=(4, 5, 6, 7), seed=0, **settings):
    """Return a network of four stages with every parameter away from where it starts, alpha from 0.3 to 0.7."""
    torch.manual_seed(seed)
    plan = Plan(widths, (1, 2, 2, 1)[: len(widths)], ((3, 2),), kernel=3, steps=steps)

    def exits(levels):
        return [PotentialExit(levels[-1].channels, CLASSES, t == steps - 1) for t in range(steps)]

    net = TemporalReversible((2, 8, 8), plan, exits, **settings).to(dtype)
    for name, p in net.named_parameters():
        p.data.add_((torch.rand_like(p) - 0.5) * 0.4 if name.endswith("alpha") else torch.randn_like(p) * 0.2)
    return net.train()


def images(steps, dtype=torch.float64, frames=False, seed=1):
    x = torch.randn(steps if frames else 1, 3, 2, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return x if frames else x.expand(steps, -1, -1, -1, -1)


def criterion(outputs):
    return nn.functional.cross_entropy(outputs[0], TARGETS)


def gradients(net, x, reversible, weights=None):
    """Return the gradients of all parameters and of the images, by name."""
    net.zero_grad()
    x = x.detach().clone().requires_grad_()
    net.loss(x, criterion, weights or [1.0] * len(net.steps), reversible).backward()
    return {"x": x.grad} | {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def worst(found, expected):
    """Return the largest difference relative to the largest gradient of a parameter."""
    assert found.keys() == expected.keys()
    return max(((found[name] - g).abs().max() / g.abs().max().clamp_min(1e-3)).item() for name, g in expected.items())


def potentials(net, x):
    """Return the potentials of all stages after every step."""
    source, found = net.source(x), []
    for t, levels in enumerate(net.steps):
        found.append(advance(levels, net.input_at(source, t), found[-1] if t else None))
    return found


class Recordings(ClassificationTask):
    """Random films of 8x8 pixels."""

    card = TaskCard("test/recordings", "", "", "", "", "")
    head = Head("classify", classes=CLASSES)
    input_shape, steps, temporal = (2, 8, 8), 3, True
    budgets = {"smoke": Budget(Training(epochs=1, batch_size=16), Backbone("conv", (4, 6)))}

    def load(self, split):
        drawn = torch.Generator().manual_seed(0)
        return Data((torch.rand(8, 3, 2, 8, 8, generator=drawn) < 0.3).float(), torch.arange(8) % CLASSES)


class Recorder:
    """An update that changes nothing."""

    def minimise(self, loss):
        loss.backward()


def digits(steps=4, samples=4, **options):
    torch.manual_seed(0)
    method = TRevSnn(Digits(), options, steps=steps)
    return method, method.build().train(), next(method.task.batches("train", samples))


# 1


def fill_alpha(net, alpha):
    for name, p in net.named_parameters():
        if name.endswith("alpha"):
            p.data.fill_(alpha)
    return net


@pytest.mark.parametrize(
    ("dtype", "wide", "limit"), [(torch.float64, True, 1e-10), (torch.float32, False, 1e-4), (torch.float32, True, 1e-10)]
)
@pytest.mark.parametrize("frames", [False, True])
def test_1_potentials_of_all_steps_are_recovered_from_those_of_the_last(dtype, wide, limit, frames):
    net = fill_alpha(make(8, dtype, frames=frames, wide=wide), 0.5)  # where training starts
    errors, largest = net.reconstruction_error(images(8, dtype, frames))
    assert len(errors) == 7 and largest > 1
    assert max(errors) < limit


def test_1_errors_grow_from_the_last_step_to_the_first_and_the_faster_the_smaller_alpha_is():
    def first_error(alpha):
        net = fill_alpha(make(6, torch.float32, wide=False), alpha)
        errors = net.reconstruction_error(images(6, torch.float32))[0]
        assert errors[0] > errors[-1]
        return errors[0]

    assert first_error(0.9) < first_error(0.5) < first_error(0.1)


def test_1_double_potentials_save_what_single_ones_lose_in_many_steps():
    x = images(16, torch.float32)
    errors = [max(fill_alpha(make(16, torch.float32, wide=wide), 0.45).reconstruction_error(x)[0]) for wide in (False, True)]
    assert errors[0] > 1e-2
    assert errors[1] < 1e-8


def test_2_gradients_of_many_steps_in_single_precision_are_right_with_double_potentials():
    net, x = fill_alpha(make(16, torch.float32), 0.45), images(16, torch.float32)
    assert worst(gradients(net, x, True), gradients(net, x, False)) < 1e-3


# 2


@pytest.mark.parametrize(("steps", "limit"), [(1, 1e-12), (2, 1e-9), (4, 1e-9), (8, 1e-9), (16, 1e-6)])
@pytest.mark.parametrize("supervised", ["last", "every"])
def test_2_gradients_are_those_of_plain_back_propagation(steps, limit, supervised):
    net = make(steps)
    weights = [1.0] * steps if supervised == "every" else [0.0] * (steps - 1) + [1.0]
    found, expected = (gradients(net, images(steps), reversible, weights) for reversible in (True, False))
    assert worst(found, expected) < limit
    if steps > 1:
        assert all(expected[f"steps.{steps - 1}.{stage}.alpha"].abs().max() > 0 for stage in range(4))


@pytest.mark.parametrize("settings", [{"frames": True}, {"split_input": True}])
def test_2_gradients_agree_when_every_network_sees_an_input_of_its_own(settings):
    net, x = make(4, **settings), images(4, frames="frames" in settings)
    assert worst(gradients(net, x, True), gradients(net, x, False)) < 1e-9


@pytest.mark.parametrize("wide", [False, True])
def test_2_gradients_in_single_precision_point_where_those_of_plain_back_propagation_do(wide):
    net, x = make(8, torch.float32, wide=wide), images(8, torch.float32)
    one, two = (torch.cat([g.flatten() for g in gradients(net, x, reversible).values()]) for reversible in (True, False))
    assert torch.cosine_similarity(one, two, dim=0) > 0.9999


def test_2_gradients_agree_in_mixed_precision():
    net, x = make(4, torch.float32), images(4, torch.float32)
    found = []
    for reversible in (True, False):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = net.loss(x, criterion, [1.0] * 4, reversible)
        loss.backward()
        assert all(p.grad.dtype == torch.float32 for p in net.parameters())
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.cosine_similarity(*found, dim=0) > 0.999


def test_2_gradients_of_a_network_of_smooth_neurons_are_finite_differences():
    net, x = make(3, widths=(4, 5)), images(3)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, TurnOff):
                setattr(parent, name, nn.Sigmoid())
    weights = [1.0, 0.5, 2.0]
    found = gradients(net, x, True, weights)
    parameters = dict(net.named_parameters())
    generator = torch.Generator().manual_seed(5)
    for names in ([n for n in parameters if "alpha" in n], [n for n in parameters if n.startswith("stem")], list(parameters)):
        ways = {name: torch.randn(parameters[name].shape, generator=generator, dtype=torch.float64) for name in names}
        slope = sum((found[name] * way).sum().item() for name, way in ways.items())

        def loss(step, ways=ways):
            for name, way in ways.items():
                parameters[name].data.add_(way, alpha=step)
            with torch.no_grad(), still_statistics(net.modules()):
                value = net.loss(x, criterion, weights, reversible=False).item()
            for name, way in ways.items():
                parameters[name].data.sub_(way, alpha=step)
            return value

        h = 1e-5
        assert slope == pytest.approx((8 * (loss(h) - loss(-h)) - loss(2 * h) + loss(-2 * h)) / (12 * h), rel=1e-6)


def test_2_a_change_of_weights_between_forward_and_backward_is_noticed():
    net = make(2)
    loss = net.loss(images(2), criterion, [1.0, 1.0])
    with torch.no_grad():
        net.steps[1][0].alpha.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# 3


def saved_bytes(steps, reversible, **options):
    method, net, batch = digits(steps, division="step", reversible=reversible, **options)
    with SavedTensors(net) as meter:
        method.step(net, batch, Recorder())
    return meter.peak


@pytest.mark.parametrize("options", [{}, {"loss": "tet"}])
def test_3_bytes_saved_for_backward_are_the_same_for_any_number_of_steps(options):
    assert len({saved_bytes(steps, True, **options) for steps in (2, 4, 16)}) == 1


def test_3_bytes_saved_by_plain_back_propagation_grow_with_every_step():
    two, three, four = (saved_bytes(steps, False) for steps in (2, 3, 4))
    assert four - three == three - two > 0.7 * saved_bytes(2, True)


def test_3_with_the_operations_of_one_network_divided_memory_falls():
    def peak(steps):
        method, net, batch = digits(steps)
        with SavedTensors(net) as meter:
            method.step(net, batch, Recorder())
        return meter.peak

    assert peak(2) > peak(4) > peak(8)


# 4


def test_4_without_alpha_and_up_a_potential_does_not_depend_on_steps_before():
    net = make(3, frames=True).eval()
    x = images(3, frames=True)
    changed = x.clone()
    changed[0] = -x[0]
    before, after = potentials(net, x), potentials(net, changed)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(before[2], after[2], strict=True))
    for module in net.modules():
        if isinstance(module, StageStep) and module.alpha is not None:
            module.alpha.data.zero_()
            if module.up is not None:
                module.up.norm.weight.data.zero_()
                module.up.norm.bias.data.zero_()
    before, after = potentials(net, x), potentials(net, changed)
    assert all(torch.equal(a, b) for t in (1, 2) for a, b in zip(before[t], after[t], strict=True))
    assert not torch.equal(before[0][0], after[0][0])


def test_4_what_a_step_knows_of_those_before_it_knows_by_the_potentials():
    net = make(3, frames=True).eval()
    x = images(3, frames=True)
    states = potentials(net, x)
    again = advance(net.steps[2], net.source(x)[2:], states[1])  # without the steps before
    assert all(torch.equal(a, b) for a, b in zip(again, states[2], strict=True))
    other = advance(net.steps[2], net.source(x)[2:], potentials(net, -x)[1])
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(other, states[2], strict=True))


def test_potentials_are_those_of_the_equation():
    net = make(3).eval()
    x = images(3)
    v = [[torch.zeros(1)] * 4]
    below = net.stem(x[:1])
    for t, stages in enumerate(net.steps):
        now = []
        for number, stage in enumerate(stages):
            z = below if number == 0 else stage.down.norm(stage.down.conv((now[number - 1] >= 0.5).double()))
            if t and number < 3:
                up = stage.up.norm(stage.up.conv((v[t][number + 1] >= 0.5).double()))
                z = z + (up.repeat_interleave(2, 3).repeat_interleave(2, 4) if number < 2 else up)
            kept = stage.alpha[:, None, None] * v[t][number] if t else 0
            now.append(stage.blocks(z) + kept)
        v.append(now)
    for found, expected in zip(potentials(net, x), v[1:], strict=True):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# 5 (blocks and exits: tests/methods/nn/test_turn_off.py)


@pytest.mark.parametrize("settings", [{}, {"frames": True}])
def test_5_a_folded_network_answers_as_before(settings):
    net, x = make(3, **settings), images(3, frames=bool(settings))
    net(x)  # running statistics
    net.eval()
    before, parameters = net(x), sum(p.numel() for p in net.parameters())
    net.fold()
    assert (net(x) - before).abs().max() < 1e-12
    assert sum(p.numel() for p in net.parameters()) < parameters
    assert not any(isinstance(module, Norm) or name.endswith(("gamma", "gain")) for name, module in net.named_modules())
    assert not any(name.endswith(("gamma", "gain")) for name, _ in net.named_parameters())


def test_5_training_ends_with_folding():
    for wanted in (True, False):
        method, net, _ = digits(reparametrise=wanted)
        assert len(list(method.phases(net))) == 1
        assert any(name.endswith("gamma") for name, _ in net.named_parameters()) is not wanted


# 6


@pytest.mark.parametrize("least", [1e-3, 0.1])
def test_6_alpha_stays_away_from_zero_after_any_number_of_updates_and_keeps_its_sign(least):
    net = make(3, alpha_min=least)
    alphas = [p for name, p in net.named_parameters() if name.endswith("alpha")]
    assert len(alphas) == 8
    optimizer = torch.optim.SGD(alphas, lr=0.5)
    crossed = 0
    for _ in range(12):
        optimizer.zero_grad()
        net.loss(images(3), criterion, [1.0] * 3).backward()
        optimizer.step()
        signs = [alpha.detach() >= 0 for alpha in alphas]
        crossed += sum(int((alpha.abs() < least).sum()) for alpha in alphas)
        net.clamp()
        assert all(alpha.abs().min() >= least for alpha in alphas)
        assert all(torch.equal(alpha > 0, sign) for alpha, sign in zip(alphas, signs, strict=True))
    assert crossed or least < 0.1


def test_6_an_alpha_of_zero_becomes_positive_and_others_stay():
    net = make(2)
    net.steps[1][0].alpha.data.copy_(torch.tensor([0.0, -0.0, -0.01, 0.4]))
    net.clamp()
    assert net.steps[1][0].alpha.tolist() == pytest.approx([0.1, 0.1, -0.1, 0.4])


# 7


def test_7_inference_runs_the_stem_and_every_network_once_per_image():
    method, net, batch = digits(4)
    runs = []
    for module in (net.stem, *(stage for stages in net.steps for stage in stages), *net.exits):
        module.register_forward_hook(lambda module, args, output: runs.append((id(module), output.shape[:2])))
    method.predict(net.eval(), batch.inputs)
    assert len(runs) == len({module for module, _ in runs}) == 1 + 4 * 2 + 4
    assert {shape for _, shape in runs} == {(1, 4)}


def test_7_operations_and_parameters_do_not_grow_with_the_number_of_steps():
    dense, parameters = [], []
    for steps in (1, 2, 4, 8, 16):
        method, net, batch = digits(steps)
        net.eval().exits = nn.ModuleList([PotentialExit(net.levels[-1].channels, 10, True)])  # only the last counts
        with SynopsMeter(net) as meter, torch.no_grad():
            method.predict(net, batch.inputs)
        dense.append(meter.result(len(batch.inputs)).nominal)
        parameters.append(sum(p.numel() for p in net.parameters()))
    assert max(dense[1:]) <= dense[0] and min(dense) > 0.6 * dense[0]
    assert max(parameters[1:]) <= parameters[0]


# 8


def test_8_the_way_back_of_second_blocks_is_one_object_for_all_networks():
    net = make(5)
    for stage in range(4):
        backs = [stages[stage].blocks[1].back for stages in net.steps]
        assert all(back is backs[0] for back in backs)
        own = [stages[stage].blocks[0].back for stages in net.steps]
        assert len({id(p) for back in own for p in back.parameters()}) == 5 * len(list(own[0].parameters()))


@pytest.mark.parametrize("reversible", [True, False])
def test_8_normalisations_count_a_training_step_once(reversible):
    method, net, batch = digits(3, reversible=reversible)
    norms = [module for module in net.modules() if isinstance(module, Norm)]
    assert len(norms) == 3 + 2
    for count in (1, 2):
        method.step(net, batch, Recorder())
        assert {int(norm.num_batches_tracked) for norm in norms} == {count}


def test_8_running_statistics_are_those_of_plain_back_propagation():
    nets = [digits(3, reversible=reversible) for reversible in (True, False)]
    for method, net, batch in nets:
        method.step(net, batch, Recorder())
    for one, two in zip(nets[0][1].buffers(), nets[1][1].buffers(), strict=True):
        assert torch.equal(one, two)


# Sizes


def test_the_small_net_has_the_parameters_of_the_published_log():
    with torch.device("meta"):
        net = TemporalReversible((3, 224, 224), NETS["small"], lambda levels: [PotentialExit(512, 1000, t == 3) for t in range(4)])
    unused = sum(NETS["small"].widths)  # there: an alpha in the first network, which multiplies nothing
    assert sum(p.numel() for p in net.parameters()) + unused == 32_331_312
    assert [level.stride for level in net.levels] == [4, 8, 16, 16]


@pytest.mark.parametrize(("name", "millions"), [("tiny", 15.22), ("small", 29.79)])
def test_nets_of_the_paper_have_the_deployed_parameters_of_the_card(name, millions):
    width = NETS[name].widths[-1]
    with torch.device("meta"):
        net = TemporalReversible((3, 224, 224), NETS[name], lambda levels: [nn.Conv2d(width, 1000, 1)])
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions


# Loss, inputs and answers


def test_the_loss_weighs_exits_by_their_step_and_the_last_once_more():
    method, net, batch = digits(4)
    outputs = copy.deepcopy(net)(method.encode(batch.inputs))
    errors = [nn.functional.cross_entropy(output, batch.targets) for output in outputs]
    expected = sum((i + 1) / 4 * error for i, error in enumerate(errors)) + errors[-1]
    torch.testing.assert_close(method.step(net, batch, Recorder()), expected)


def test_event_frames_are_seen_one_by_one_and_learnt_by_tet():
    method = TRevSnn(Recordings())
    net = method.build().train()
    batch = next(method.task.batches("train", 8))
    outputs = copy.deepcopy(net)(method.encode(batch.inputs))
    error = sum(nn.functional.cross_entropy(output, batch.targets) for output in outputs) / 3
    expected = 0.999 * error + 0.001 * (outputs - 1).square().mean()
    torch.testing.assert_close(method.step(net, batch, Recorder()), expected)
    assert [level.channels for level in net.levels] == [4, 6]
    stems = {id(p) for stages in net.steps for p in stages[0].down.parameters()}
    assert len(stems) == 3 * 3  # weight, bias and gain of each


def test_the_answer_is_the_last_exits_for_images_and_the_mean_for_frames():
    method, net, batch = digits(3)
    x = method.encode(batch.inputs)
    assert torch.equal(method.predict(net.eval(), batch.inputs).final(), net(x)[-1])
    method = TRevSnn(Recordings())
    net = method.build().eval()
    batch = next(method.task.batches("test", 4))
    torch.testing.assert_close(method.predict(net, batch.inputs).final(), net(method.encode(batch.inputs)).mean(0))


@pytest.mark.parametrize("settings", [{}, {"frames": True}, {"split_input": True}])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3), (2,)])
def test_single_steps_answer_as_the_whole_run(settings, sizes):
    net, x = make(4, **settings).eval(), images(4, frames="frames" in settings)
    with stepping(net):
        parts = torch.cat([net(part) for part in x[: sum(sizes)].split(sizes)])
    assert torch.equal(parts, net(x)[: sum(sizes)])


def test_more_steps_than_networks_are_refused():
    with pytest.raises(ValueError, match="networks for 2 time steps, 3 were given"):
        make(2)(images(3))


def test_split_input_shows_every_network_its_share_of_the_stem():
    net, x = make(2, split_input=True).eval(), images(2)
    before = potentials(net, x)
    net.stem[-1].weight.data[4:] *= -1  # the share of the second network
    after = potentials(net, x)
    assert torch.equal(before[0][3], after[0][3])
    assert not torch.equal(before[1][0], after[1][0])


def test_images_coded_in_time_are_seen_frame_by_frame():
    task = Registries().task("static/digits[encoding=rate]")
    method = TRevSnn(task)
    assert method.frames and isinstance(method.build().stem, nn.Identity)


def test_places_in_the_image_are_answered_from_all_stages_and_empty_ones_learn_too():
    method = TRevSnn(Registries().task("detection/digit-scenes"), steps=2)
    torch.manual_seed(0)
    net = method.build().double().train()
    batch = next(method.task.batches("train", 2))
    batch = Batch(batch.inputs.double(), batch.targets, batch.index)
    assert method.predict(net, batch.inputs).outputs.shape == (2, 2, 64, 15)
    twin = copy.deepcopy(net)
    method.training_loss(net, batch, True).backward()
    method.training_loss(twin, batch, False).backward()
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-8, atol=1e-10)


# The plugin


@pytest.mark.parametrize(
    ("options", "task", "match"),
    [
        ({"split_input": True}, Recordings, "split_input"),
        ({"kernel": 4}, Digits, "odd"),
        ({"alpha_init": 0.05}, Digits, "alpha_init"),
        ({"alpha_min": 0}, Digits, "alpha_min"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, task, match):
    with pytest.raises(UsageError, match=match):
        TRevSnn(task(), options)


def test_sequences_are_refused_with_a_reason():
    assert "no space" in TRevSnn.supports(Registries().task("sequences/adding"))


def test_options_decide_the_network():
    net = TRevSnn(Digits(), {"kernel": 5, "gamma_init": 0.0, "alpha_init": -0.6}, steps=2).build()
    assert net.steps[0][0].blocks[0].depthwise.kernel_size == (5, 5)
    assert net.steps[0][1].blocks[0].gamma.abs().max() == 0
    assert net.steps[1][1].alpha.unique().tolist() == pytest.approx([-0.6])
    assert TRevSnn(Digits(), {"division": "step"}, steps=8).plan().widths == (24, 48)
    assert TRevSnn(Digits(), steps=4).plan().widths == (24, 48)
    assert TRevSnn(Digits(), {"net": "tiny"}, steps=4).plan().widths == NETS["tiny"].widths


def test_vectors_have_no_weight_decay():
    method, net, _ = digits()
    groups = next(method.phases(net)).parameters
    assert all(p.dim() > 1 for p in groups[0]["params"]) and all(p.dim() < 2 for p in groups[1]["params"])
    assert groups[1]["weight_decay"] == 0
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_the_report_has_the_limits_of_the_inverse():
    method, net, _ = digits(4)
    report = method.report(net)
    assert len(report["reconstruction_error"]) == 3 and max(report["reconstruction_error"]) < 1e-10
    assert 1e-9 < max((lambda method, net, _: method.report(net))(*digits(4, potential="single"))["reconstruction_error"]) < 1e-4
    assert report["alpha_min"] == pytest.approx([0.5, 0.5])
    assert report["widths"] == [24, 48]
    assert report["parameters_deployed"] == sum(p.numel() for p in net.parameters()) - 3 * (48 * 10 + 20)
    assert "alpha_min" not in (lambda method, net, _: method.report(net))(*digits(1))


def test_the_exact_loss_is_that_of_the_twin():
    method, net, batch = digits(2)
    torch.testing.assert_close(method.exact_loss(net, batch), method.step(net, batch, Recorder()))
    assert digits(2, reversible=False)[0].exact_loss(net, batch) is None


def test_recipe_is_the_published_one():
    task = Registries().tasks.load("static/imagenet")("paper")
    method = TRevSnn(task, track="recipe")
    training = method.training
    assert (training.optimizer, training.weight_decay, training.epochs, training.warm_up) == ("adamw", 0.01, 300, 20)
    assert training.lr * 1024 / training.batch_size == pytest.approx(2e-3)
    assert (training.label_smoothing, method.options.net, method.options.alpha_min, method.steps) == (0.1, "small", 1e-3, 4)
    assert method.plan() == NETS["small"]
    assert TRevSnn(Digits(), track="recipe").options.net == "task"
