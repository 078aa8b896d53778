"""The training loop does what the same loop written by hand does, for every kind of phase."""

import math

import pytest
import torch
from torch import nn

from harness.loop import DivergedError, Observer, make_optimizer, train
from harness.method import Phase
from harness.task import Training


def fit(method, seed=0, **kwargs):
    torch.manual_seed(0)
    net = method.build()
    return net, train(method, net, seed, **kwargs)


def test_training_equals_the_loop_written_by_hand(toy_task, toy_method):
    class Plain(toy_method):
        def build(self):
            return nn.Linear(3, 2)

    method = Plain(toy_task(), training={"schedule": "constant", "epochs": 3, "weight_decay": 0.1})
    net, trained = fit(method, seed=4)

    torch.manual_seed(0)
    reference = nn.Linear(3, 2)
    data = method.task.load("train")
    order = torch.Generator().manual_seed(4)
    losses = []
    for _ in range(3):
        shuffled = torch.randperm(11, generator=order)
        total = 0.0
        for chosen in (shuffled[:5], shuffled[5:10]):
            loss = nn.functional.cross_entropy(reference(data.inputs[chosen]), data.targets[chosen])
            gradients = torch.autograd.grad(loss, list(reference.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(reference.parameters(), gradients, strict=True):
                    parameter -= 0.1 * (gradient + 0.1 * parameter)
            total += 5 * loss.item()
        losses.append(total / 10)
    torch.testing.assert_close(net.state_dict(), reference.state_dict())
    assert [trace.loss for trace in trained.traces] == pytest.approx(losses)
    assert [(trace.phase, trace.epoch, trace.batches) for trace in trained.traces] == [("train", epoch, 2) for epoch in range(3)]


def rates(method):
    """Return the learning rate of every epoch, as the optimiser had it."""
    found = []

    class Watch(Observer):
        def phase(self, phase, training, optimizer, net):
            self.optimizer = optimizer

        def around_step(self, phase, step):
            if step % 2 == 0:
                found.append(self.optimizer.param_groups[0]["lr"])

    fit(method, observer=Watch())
    return found


def test_the_cosine_schedule_falls_from_the_rate_to_zero_over_the_epochs(toy_task, toy_method):
    found = rates(toy_method(toy_task(), training={"schedule": "cosine", "epochs": 5, "lr": 0.2}))
    assert found == pytest.approx([0.1 * (1 + math.cos(math.pi * epoch / 5)) for epoch in range(5)])


def test_the_rate_drops_by_the_factor_at_milestones_and_falls_by_it_every_epoch(toy_task, toy_method):
    settings = {"epochs": 7, "lr": 0.2, "milestones": (0.5, 0.7), "lr_factor": 0.5}
    found = rates(toy_method(toy_task(), training={**settings, "schedule": "drops"}))
    assert found == pytest.approx([0.2] * 4 + [0.1] + [0.05] * 2)  # 3.5 and 4.9 epochs are rounded
    found = rates(toy_method(toy_task(), training={**settings, "schedule": "exponential"}))
    assert found == pytest.approx([0.2 * 0.5**epoch for epoch in range(7)])


def test_the_rate_warms_up_to_the_schedule(toy_task, toy_method):
    found = rates(toy_method(toy_task(), training={"schedule": "constant", "epochs": 5, "lr": 0.4, "warm_up": 3}))
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_the_constant_schedule_is_constant(toy_task, toy_method):
    assert rates(toy_method(toy_task(), training={"schedule": "constant", "epochs": 3, "lr": 0.2})) == [0.2] * 3


def test_gradients_are_clipped_to_the_norm(toy_task, toy_method):
    class Steep(toy_method):
        norms = []

        def build(self):
            return nn.Linear(3, 2)

        def step(self, net, batch, update):
            before = [p.detach().clone() for p in net.parameters()]
            loss = 100 * self.loss(net(batch.inputs), batch.targets)
            update.minimise(loss)
            after = net.parameters()
            self.norms.append(torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]).norm().item())
            return loss

    settings = {"schedule": "constant", "lr": 0.5, "epochs": 1}
    method = Steep(toy_task(), training={**settings, "clip_norm": 0.25})
    fit(method)
    assert method.norms == pytest.approx([0.5 * 0.25] * 2, rel=1e-4)
    Steep.norms = []
    fit(Steep(toy_task(), training=settings))
    assert Steep.norms[0] > 0.5


def test_phases_run_one_after_the_other_with_their_own_epochs_step_and_settings(toy_task, toy_method):
    class Phased(toy_method):
        log = []

        def other(self, net, batch, update):
            self.log.append("other")
            return super().step(net, batch, update)

        def step(self, net, batch, update):
            self.log.append("own")
            return super().step(net, batch, update)

        def phases(self, net):
            self.log.append("first")
            yield Phase("one", step=self.other, epochs=1, training=Training(epochs=9, batch_size=11))
            self.log.append("between")
            yield Phase("none", epochs=0)
            yield Phase("two", on_epoch=lambda epoch, epochs: self.log.append((epoch, epochs)))
            self.log.append("last")

    _, trained = fit(Phased(toy_task()))
    assert Phased.log == ["first", "other", "between", (0, 2), "own", "own", (1, 2), "own", "own", "last"]
    assert [(trace.phase, trace.epoch) for trace in trained.traces] == [("one", 0), ("two", 0), ("two", 1)]
    assert [name for name, _ in trained.clocks] == ["one", "none", "two"]


def test_only_the_parameters_of_the_phase_are_trained(toy_task, toy_method):
    class Partial(toy_method):
        def phases(self, net):
            yield Phase(parameters=net[3].parameters())

    method = Partial(toy_task())
    torch.manual_seed(0)
    before = method.build().state_dict()
    net, _ = fit(method)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert {"3.weight", "3.bias"} <= changed
    assert not changed & {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_frozen_modules_stay_in_eval_mode_and_are_left_as_they_were(toy_task, toy_method):
    class Frozen(toy_method):
        modes = set()

        def phases(self, net):
            yield Phase(modules=[net[2], net[3]], parameters=net[3].parameters())

        def step(self, net, batch, update):
            self.modes.add(tuple(module.training for module in (net, *net)))
            return super().step(net, batch, update)

    net, _ = fit(Frozen(toy_task()))
    assert Frozen.modes == {(False, False, False, True, True)}
    assert net[1].num_batches_tracked == 0


def test_the_whole_network_is_in_training_mode_and_validation_is_not(toy_task, toy_method):
    class Modes(toy_method):
        modes = []

        def step(self, net, batch, update):
            self.modes.append(("train", net.training, net[1].training))
            return super().step(net, batch, update)

        def predict(self, net, inputs):
            self.modes.append(("predict", net.training, net[1].training))
            return super().predict(net, inputs)

    net, _ = fit(Modes(toy_task(), training={"epochs": 2}))
    epoch = [("train", True, True)] * 2 + [("predict", False, False)]
    assert Modes.modes == epoch * 2
    assert not any(module.training for module in net.modules())


def test_a_phase_may_answer_validation_in_its_own_way(toy_task, toy_method):
    class Own(toy_method):
        def phases(self, net):
            yield Phase("blind", predict=lambda net, inputs: self.predict(nn.Sequential(net, Turn()), inputs))
            yield Phase("seeing", epochs=1, training=Training(epochs=1, batch_size=11, optimizer="sgd", lr=0.0))

    class Turn(nn.Module):
        def forward(self, x):
            return -x

    _, trained = fit(Own(toy_task(), training={"schedule": "constant"}))
    blind, seeing = trained.traces[1].validation, trained.traces[2].validation
    assert blind == pytest.approx(1 - seeing)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_training_and_says_where(toy_task, toy_method, value):
    class Broken(toy_method):
        count = 0

        def step(self, net, batch, update):
            self.count += 1
            return super().step(net, batch, update) * (value if self.count == 4 else 1)

    with pytest.raises(DivergedError, match=f"loss is {value} in phase 'train', epoch 1, step 3"):
        fit(Broken(toy_task()))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_precision_is_that_of_the_forward_pass_and_weights_stay_single(toy_task, toy_method, precision, dtype):
    class Typed(toy_method):
        types = set()

        def step(self, net, batch, update):
            self.types.add(net(batch.inputs).dtype)
            return super().step(net, batch, update)

    net, trained = fit(Typed(toy_task()), precision=precision)
    assert Typed.types == {dtype}
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert all(math.isfinite(trace.loss) for trace in trained.traces)


def test_bf16_trains_to_nearly_the_same_weights(toy_task, toy_method):
    one, two = (fit(toy_method(toy_task()), precision=precision)[0].state_dict() for precision in ("fp32", "bf16"))
    assert not torch.equal(one["3.weight"], two["3.weight"])
    torch.testing.assert_close(one["3.weight"], two["3.weight"], atol=0.02, rtol=0.02)


def test_measured_steps_are_run_in_their_context_and_left_out_of_the_clock(toy_task, toy_method):
    from contextlib import contextmanager

    entered = []

    class Measure(Observer):
        @contextmanager
        def measurement(self, step):
            entered.append(step)
            yield

        def around_step(self, phase, step):
            return self.measurement(step) if step == 1 else None

    net, trained = fit(toy_method(toy_task(), training={"epochs": 2}), observer=Measure())
    plain, _ = fit(toy_method(toy_task(), training={"epochs": 2}))
    assert entered == [1]
    assert len(trained.clocks[0][1].samples()["total"]) == 3
    torch.testing.assert_close(net.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_the_observer_hears_of_every_epoch(toy_task, toy_method):
    heard = []

    class Listen(Observer):
        def epoch(self, trace, epochs):
            heard.append((trace.epoch, epochs))

    fit(toy_method(toy_task(), training={"epochs": 3}), observer=Listen())
    assert heard == [(0, 3), (1, 3), (2, 3)]


def test_the_optimiser_is_the_one_the_settings_name():
    parameter = nn.Parameter(torch.zeros(2))
    sgd = make_optimizer([parameter], Training(1, optimizer="sgd", lr=0.3, momentum=0.7, weight_decay=0.2))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.3, 0.7, 0.2)
    assert type(make_optimizer([parameter], Training(1, optimizer="adam"))) is torch.optim.Adam
    assert type(make_optimizer([parameter], Training(1, optimizer="adamw"))) is torch.optim.AdamW


def test_groups_of_parameters_may_have_their_own_settings():
    group = {"params": [nn.Parameter(torch.zeros(2))], "lr": 0.5, "weight_decay": 0.0}
    assert make_optimizer([group], Training(1, lr=0.1, weight_decay=0.3)).param_groups[0]["lr"] == 0.5
