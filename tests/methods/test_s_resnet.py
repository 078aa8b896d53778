"""S-ResNet: the numbered faithfulness tests of its card, and every part of the study as an option."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.plugin import UsageError
from harness.registry import Registries
from harness.spec import parse_variant
from harness.task import Batch
from methods.nn.bntt import BatchNormThroughTime
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import ResidualBlock
from methods.nn.stepping import stepping
from methods.nn.surrogate import Triangle
from methods.nn.synapse import Conv2d
from methods.nn.votes import Votes
from methods.nn.watch import Watch
from methods.s_resnet import ABLATION, Resize, SResnet
from suites.static_vision import Digits


def make(steps=4, task=None, **options):
    method = SResnet(task or Digits(), options, steps=steps)
    torch.manual_seed(0)
    return method, method.build()


def images(steps=4, count=3, seed=0):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).expand(steps, -1, -1, -1, -1)


def convolutions(net, kernel):
    return [m for m in net.modules() if isinstance(m, Conv2d) and m.kernel_size == (kernel, kernel)]


# 1
@pytest.mark.parametrize(("n", "layers"), [(1, 8), (6, 38)])
def test_a_network_has_6n_plus_2_layers_and_two_shortcut_convolutions(n, layers):
    with torch.device("meta"):
        _, net = make(net="cifar", blocks=n)
    assert len(convolutions(net, 3)) + 1 == layers
    assert len(convolutions(net, 1)) == 2
    assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    assert [level.channels for level in net.backbone.levels] == [32, 64, 128, 128]


# 2
def test_block_outputs_are_whole_numbers_in_the_first_stage_and_real_after_it():
    _, net = make(net="cifar", blocks=3, width=8)
    neurons = [m for m in net.modules() if isinstance(m, LIF)]
    blocks = [m for m in net.modules() if isinstance(m, ResidualBlock)]
    with Watch(neurons) as spikes, Watch(blocks) as seen, torch.no_grad():
        net(3 * images())
    assert len(spikes.outputs) == 19
    assert all(set(out.unique().tolist()) <= {0.0, 1.0} for out in spikes.outputs)
    for count, out in enumerate(seen.outputs[:3], start=1):
        assert torch.equal(out, out.round())
        assert out.min() >= 0
        assert out.max() <= 1 + count
    assert seen.outputs[2].max() > 1
    assert all(not torch.equal(out, out.round()) for out in seen.outputs[3:])


# 3
def test_the_potential_is_the_leaky_sum_of_currents_less_spikes():
    neuron = SResnet(Digits()).neuron(1)
    x = torch.rand(40, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with stepping(neuron):
        spikes = neuron(x)
        potential = neuron.carried()[0]
    weights = 0.8744 ** torch.arange(39, -1, -1, dtype=torch.float64)
    assert spikes.sum() > 100
    torch.testing.assert_close(potential, weights @ (x - spikes), rtol=0, atol=1e-10)


# 4
def test_the_reset_is_detached():
    x = torch.tensor([[1.3], [0.5]], dtype=torch.float64, requires_grad=True)
    spikes = SResnet(Digits()).neuron(1)(x)
    assert spikes[0].item() == 1
    earlier, now = torch.autograd.grad(spikes[1].sum(), x)[0].flatten().tolist()  # both times ds[1]/du[1]
    u = 0.8744 * 0.3 + 0.5
    assert now == pytest.approx(0.3 * (1 - abs(u - 1)))
    assert earlier / now == pytest.approx(0.8744)


def test_spikes_are_strictly_above_threshold_and_the_surrogate_is_a_triangle_of_height_0_3():
    x = torch.tensor([[0.0, 0.5, 1.0, 1.5, 2.0]], dtype=torch.float64, requires_grad=True)
    spikes = SResnet(Digits()).neuron(1)(x)
    assert spikes[0].tolist() == [0, 0, 0, 1, 1]
    torch.testing.assert_close(torch.autograd.grad(spikes.sum(), x)[0][0], Triangle(scale=0.3)(x.detach()[0] - 1))


# 5
def test_bntt_has_statistics_scale_and_shift_of_its_own_at_every_step():
    method, net = make(steps=3)
    norms = [m for m in net.modules() if isinstance(m, BatchNormThroughTime)]
    channels = [24, 24, 24, 48, 48, 48]  # stem, block, block, shortcut
    assert sum(p.numel() for m in norms for p in m.parameters()) == 3 * 2 * sum(channels)
    net.train()(images(3))
    later = norms[2].running_mean
    assert not torch.equal(later[0], later[1])
    assert method.report(net)["norm_parameters"] == 3 * 2 * sum(channels)


def test_bntt_with_shift_equals_a_batch_normalisation_per_step_of_both_kinds():
    norm = BatchNormThroughTime(5, 3, bias=True).double()
    generator = torch.Generator().manual_seed(0)
    nn.init.normal_(norm.gamma, generator=generator)
    nn.init.normal_(norm.beta, generator=generator)
    x = 2 * torch.randn(3, 4, 5, 6, 6, dtype=torch.float64, generator=generator) + 1
    trained = norm(x)
    for t in range(3):
        torch.testing.assert_close(trained[t], F.batch_norm(x[t], None, None, norm.gamma[t], norm.beta[t], True, eps=1e-4))
    tested = norm.eval()(x)
    for t in range(3):
        own = F.batch_norm(x[t], norm.running_mean[t], norm.running_var[t], norm.gamma[t], norm.beta[t], eps=1e-4)
        torch.testing.assert_close(tested[t], own)
    with stepping(norm):
        torch.testing.assert_close(torch.cat([norm(x[t : t + 1]) for t in range(3)]), tested)


def test_more_steps_than_there_are_statistics_for_are_refused():
    _, net = make(steps=3)
    with pytest.raises(ValueError, match="3 time steps"):
        net.eval()(images(4))


# 6
def test_boosting_is_the_mean_of_ten_votes_and_the_strided_average_pool():
    torch.manual_seed(0)
    votes = Votes(7, 4, 10).double()
    x = torch.randn(3, 2, 7, dtype=torch.float64)
    all_votes = votes.synapse(x)
    assert all_votes.shape[-1] == 40
    torch.testing.assert_close(votes(x)[..., 1], all_votes[..., 10:20].mean(-1))
    pooled = F.avg_pool1d(all_votes.flatten(0, 1).unsqueeze(1), 10, 10).view(3, 2, 4)
    torch.testing.assert_close(votes(x), pooled)


def test_boosting_equals_one_linear_map_of_which_each_vote_gets_a_tenth_of_the_gradient():
    torch.manual_seed(0)
    votes = Votes(7, 4, 10).double()
    single = nn.Linear(7, 4, bias=False, dtype=torch.float64)
    single.weight.data = votes.synapse.weight.detach().view(4, 10, 7).mean(1)
    x, g = torch.randn(3, 2, 7, dtype=torch.float64), torch.randn(3, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(votes(x), single(x))
    (votes(x) * g).sum().backward()
    (single(x) * g).sum().backward()
    torch.testing.assert_close(votes.synapse.weight.grad.view(4, 10, 7), (single.weight.grad / 10).unsqueeze(1).expand(4, 10, 7))


# 7
def test_the_answer_is_the_read_out_of_the_mean_over_time():
    method, net = make(net="cifar", width=8)
    net = net.double().eval()
    with Watch([net.head.readout]) as seen, torch.no_grad():
        answer = method.task.final(net(images().double()))
    torch.testing.assert_close(answer, net.head.readout(seen.inputs[0].mean(0)))
    assert answer.abs().max() > 0


# 8
def test_the_gradient_reaches_the_first_convolution_of_38_layers_at_two_steps():
    method, net = make(steps=2, net="cifar", blocks=6, width=8)
    method.task.final(net(images(2, count=4))).logsumexp(-1).sum().backward()
    assert convolutions(net, 3)[0].weight.grad.norm() > 0


# The parts of the study ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ABLATION)
def test_every_change_of_the_ablation_changes_what_is_learnt(change):
    def gradient(**options):
        method, net = make(**options)
        batch = next(method.task.batches("train", 8))
        torch.manual_seed(1)
        updates = []

        class Seen:
            def minimise(self, loss):
                loss.backward()
                updates.append(loss.item())

        method.step(net.train(), Batch(*batch), Seen())
        return updates[0], convolutions(net, 3)[0].weight.grad

    loss, changed = gradient(**parse_variant(f"s_resnet[{change}]")[1])
    assert torch.isfinite(changed).all()
    assert changed.count_nonzero() > 0
    plain_loss, plain = gradient()
    assert not torch.equal(plain, changed) or loss != plain_loss or change == "bntt_bias=false"
    if change == "bntt_bias=false":
        assert sum(p.numel() for p in make(bntt_bias=False)[1].parameters()) < sum(p.numel() for p in make()[1].parameters())


def test_residual_names_the_place_of_the_sum():
    placed = {name: make(residual=name)[1].backbone.stages[0][0].connect for name in ("spikes", "membrane", "none")}
    assert placed == {"spikes": "add", "membrane": "vanilla", "none": "plain"}


def test_a_reset_to_zero_forgets_what_is_above_threshold():
    neuron = SResnet(Digits(), {"reset": "zero"}).neuron(1)
    with stepping(neuron):
        neuron(torch.full((1, 1), 1.7))
        assert neuron.carried()[0].item() == 0


@pytest.mark.parametrize(("residual", "same"), [("spikes", True), ("membrane", False)])
def test_at_threshold_one_tdbn_is_bn_but_for_added_currents(residual, same):
    bn, tdbn = (make(norm=name, residual=residual)[1](images()) for name in ("bn", "tdbn"))
    assert torch.equal(bn, tdbn) == same


def test_tdbn_scales_added_branches_and_bn_does_not():
    assert [SResnet(Digits(), {"norm": name}).norm(3, 0.5).scale for name in ("bn", "tdbn")] == [1.0, 0.5]
    assert isinstance(SResnet(Digits(), {"norm": "bn"}).norm(3), BatchNorm)


def test_counted_spikes_are_the_answer_and_their_number_is_the_logit():
    method, net = make(answer="spike_count")
    outputs = net(images())
    assert set(outputs.unique().tolist()) <= {0.0, 1.0}
    rates, targets = outputs.mean(0), torch.tensor([0, 1, 2])
    torch.testing.assert_close(method.loss(rates, targets), F.cross_entropy(outputs.sum(0), targets))


def test_random_spikes_have_the_mean_of_the_image_halved():
    method = SResnet(Digits(), {"input": "poisson"}, steps=2000)
    image = torch.linspace(-2, 2, 9).view(1, 1, 3, 3)
    coded = method.encode(image)
    assert set(coded.unique().tolist()) == {-1.0, 0.0, 1.0}
    torch.testing.assert_close(coded.mean(0), image / 2, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("events/digits-saccade", {"input": "poisson"}, "static data"),
        ("detection/digit-scenes", {"answer": "spike_count"}, "asks to detect"),
        ("detection/digit-scenes", {"boosting": True}, "asks to detect"),
    ],
)
def test_parts_that_a_task_has_no_use_for_are_refused(task, options, message):
    with pytest.raises(UsageError, match=message):
        SResnet(Registries().task(task), options)


def test_the_network_for_events_halves_frames_of_64_pixels_and_resizes_larger_ones():
    task = Registries().task("events/digits-saccade")
    _, small = make(task=task, net="cifar")
    assert (small.backbone.levels[0].size, small.backbone.levels[0].stride) == ((10, 10), 2)
    task.input_shape = (2, 128, 128)
    _, large = make(task=task, net="cifar", width=4)
    assert isinstance(large.backbone.stem[0], Resize)
    assert (large.backbone.levels[0].size, large.backbone.levels[0].stride) == ((32, 32), 4)
    with torch.no_grad():
        assert large(torch.rand(9, 1, 2, 128, 128)).shape == (9, 1, 10)


@pytest.mark.parametrize(("epochs", "lengths"), [(70, [49, 7, 7, 7]), (90, [63, 9, 9, 9]), (12, [8, 2, 1, 1]), (1, [1])])
def test_the_learning_rate_of_the_recipe_drops_at_rounded_epochs(epochs, lengths):
    training = SResnet(Digits(), track="recipe", training={"epochs": epochs}).training
    shares = [training.lr_share(epoch) for epoch in range(epochs)]
    assert [shares.count(share) for share in sorted(set(shares), reverse=True)] == lengths
    assert sorted(set(shares), reverse=True) == pytest.approx([1, 0.1, 0.01, 0.001][: len(lengths)])


def test_the_recipe_is_that_of_the_official_code():
    method = SResnet(Registries().task("static/cifar10", budget="paper"), track="recipe")
    o, t = method.options, method.training
    assert (o.net, o.blocks, o.width, o.leak, method.steps) == ("cifar", 6, 32, 0.8744, 50)
    assert (t.optimizer, t.lr, t.momentum, t.weight_decay, t.epochs, t.batch_size) == ("sgd", 0.026844, 0.9, 1e-4, 70, 21)


def test_weights_start_xavier_uniform_with_gain_2():
    _, net = make()
    weight = convolutions(net, 3)[1].weight
    bound = 2 * (6 / (24 * 9 + 24 * 9)) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound


def test_the_report_tells_which_convolutions_see_spikes():
    method, net = make(net="cifar", blocks=2, width=8)
    report = method.report(net)
    assert len(report["layer_rate"]) == 13
    assert len(report["non_binary_inputs"]) == len(report["real_inputs"]) == 14  # 12 in blocks, 2 in shortcuts
    first_stage, second_convolutions = report["real_inputs"][:4], report["non_binary_inputs"][1:4:2]
    assert first_stage == [0, 0, 0, 0]
    assert second_convolutions == [0, 0]
    assert max(report["real_inputs"]) > 0.5


@pytest.mark.parametrize("options", [{}, {"net": "cifar", "boosting": True}, {"residual": "membrane", "answer": "spike_count"}])
def test_single_steps_equal_the_parallel_run(options):
    method = SResnet(Digits(), options)
    torch.manual_seed(0)
    net = method.build().double()
    x = torch.randn(4, 3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        net(x)  # statistics of its own
    net.eval()
    with torch.no_grad(), stepping(net):
        serial = torch.cat([net(x[t : t + 1]) for t in range(4)])
    assert serial.abs().max() > 0
    torch.testing.assert_close(serial, net(x).detach())


@pytest.mark.parametrize("options", [{}, {"net": "cifar"}])
def test_one_sample_and_one_step_can_be_learnt_from(options):
    method = SResnet(Digits(), options, steps=1)
    torch.manual_seed(0)
    net = method.build().train()
    inputs, targets, _ = next(method.task.batches("train", 1))
    loss = method.loss(method.task.final(net(method.encode(inputs))), targets)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.head.readout.weight.grad.count_nonzero() > 0
