"""Does a method keep the contract? The checks behind ``spikebench check`` and ``harness.conformance``.

Each check takes a ``Subject`` and raises AssertionError with a sentence that says what is wrong.
"""

from __future__ import annotations

import copy
import gc
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.evaluate import final_answers
from harness.loader import targets
from harness.loop import Trained, Updater, make_optimizer, train
from harness.meters.clock import StepClock
from harness.meters.spikes import SpikeMeter
from harness.method import Method, Phase
from harness.metrics import metric
from harness.plugin import UnfitError
from harness.registry import Registries
from harness.spec import parse_variant
from harness.task import Batch

SAMPLES = 96  # training samples of a check
EPOCHS = 3


class Subject:
    """A method to be checked, with what several checks need."""

    def __init__(self, method: str, plugin_files: Sequence[str | Path] = ()) -> None:
        """Find the method; raise UsageError if it is not there."""
        self.registries = Registries(plugin_files)
        self.name, self.options = parse_variant(method)
        self.kind = self.registries.methods.load(self.name)

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks that the method claims and whose data are embedded."""
        found = []
        for name in self.registries.tasks.names():
            task = self.registries.task(name)
            if task.embedded and task.unavailable() is None and self.kind.supports(task) is None and self._fits(name):
                found.append(name)
        return found

    def _fits(self, task_name: str) -> bool:
        """Return whether the options have a use on the task."""
        try:
            self.bind(task_name)
        except UnfitError:
            return False
        return True

    def bind(self, task_name: str | None = None, epochs: int = EPOCHS) -> Method:
        """Return the method on a task (default: the first it can do), cut down to few samples and epochs."""
        task = self.registries.task(task_name or self.preferred)
        task.budget = replace(task.budget, train_samples=SAMPLES)
        return self.kind(task, self.options, training={"epochs": epochs, "batch_size": 32})

    @cached_property
    def preferred(self) -> str:
        """The task that most checks use: static/digits if the method can do it."""
        assert self.tasks, f"{self.name} can do none of the embedded tasks"
        return "static/digits" if "static/digits" in self.tasks else self.tasks[0]

    @cached_property
    def trained(self) -> tuple[Method, nn.Module, Trained]:
        """The method with a network it has trained for a few epochs."""
        return self.train()

    def train(self, epochs: int = EPOCHS) -> tuple[Method, nn.Module, Trained]:
        """Train afresh with seed 0."""
        method = self.bind(epochs=epochs)
        torch.manual_seed(0)
        net = method.build()
        return method, net, train(method, net, seed=0)


def builds_and_answers_on_every_task(subject: Subject) -> None:
    """It builds on every embedded task that it claims, and its answers have the right shape and are numbers."""
    for name in subject.tasks:
        method = subject.bind(name)
        net = method.build().eval()
        batch = next(method.task.batches("test", batch_size=3))
        with torch.no_grad():
            prediction = method.predict(net, batch.inputs)
        shape = tuple(prediction.outputs.shape)
        assert prediction.outputs.dim() >= 3 and shape[1] == 3, f"{name}: outputs are {shape}, not [T, B, ...]"
        assert prediction.outputs.isfinite().all(), f"{name}: an untrained network answers with something that is not a number"
        used = prediction.steps_used
        assert used.shape == (3,) and used.min() >= 1 and used.max() <= shape[0], f"{name}: steps_used is {used.tolist()} of {shape[0]}"
        loss = method.loss(final_answers(method.task, prediction), batch.targets)
        assert loss.dim() == 0 and loss.isfinite(), f"{name}: the loss is {loss}"


def loss_falls(subject: Subject) -> None:
    """In its first phase the training loss falls from the first epoch to the last."""
    _, _, trained = subject.trained
    losses = [trace.loss for trace in trained.traces if trace.phase == trained.traces[0].phase]
    assert losses[-1] < losses[0], f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f} in {len(losses)} epochs"


def no_state_survives_a_batch(subject: Subject) -> None:
    """The same inputs give the same answers whatever was answered before."""
    method, net, _ = subject.trained
    batches = list(method.task.batches("test", batch_size=8, limit=16))
    with torch.no_grad(), _seeded():
        first = method.predict(net, batches[0].inputs).outputs
    with torch.no_grad():
        method.predict(net, batches[1].inputs)
    with torch.no_grad(), _seeded():
        again = method.predict(net, batches[0].inputs).outputs
    assert torch.equal(first, again), "the same inputs were answered differently after another batch"


def same_seed_same_result(subject: Subject) -> None:
    """Two trainings with one seed end with the same weights, bit by bit."""
    one, two = subject.train(epochs=1)[1].state_dict(), subject.train(epochs=1)[1].state_dict()
    different = [name for name in one if not _same(one[name], two.get(name))] if one.keys() == two.keys() else ["names"]
    assert not different, f"two runs with seed 0 differ in {different[:3]}"


def trained_network_can_be_saved(subject: Subject) -> None:
    """A trained network that is saved and loaded answers as before."""
    method, net, _ = subject.trained
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    inputs = next(method.task.batches("test", batch_size=8)).inputs
    with torch.no_grad(), _seeded():
        before = method.predict(net, inputs).outputs
    with torch.no_grad(), _seeded():
        after = method.predict(loaded, inputs).outputs
    assert torch.equal(before, after), "a network answers differently after saving and loading"


def spikes_are_what_it_declares(subject: Subject) -> None:
    """Spiking modules emit exactly 0 and 1, unless the method declares graded spikes; a spiking method has spiking modules."""
    method, net, _ = subject.trained
    inputs = next(method.task.batches("test", batch_size=8)).inputs
    with SpikeMeter(net) as meter, torch.no_grad():
        method.predict(net, inputs)
    count = meter.result(len(inputs))
    graded = [name for name, module in net.named_modules() if getattr(module, "spike_kind", None) == "graded"]
    assert not count.offenders, f"binary neurons emitted other values than 0 and 1: {count.offenders[:3]}"
    assert method.spikes == "graded" or not graded, f"modules {graded[:3]} are graded, the method declares {method.spikes!r}"
    assert (method.spikes == "none") == (not count.layers), (
        f"the method declares {method.spikes!r} spikes, and {len(count.layers)} modules with a spike_kind ran"
    )


def gradients_are_finite(subject: Subject) -> None:
    """In the first phase, gradients are numbers and every step changes weights."""
    method = subject.bind()
    torch.manual_seed(0)
    net = method.build()
    phase = next(method.phases(net))
    before = copy.deepcopy(net.state_dict())
    update = _CheckedUpdater(method, net, phase)
    for module in phase.modules or [net]:
        module.train()
    if phase.on_epoch:
        phase.on_epoch(0, EPOCHS)
    (phase.step or method.step)(net, _batch(method, phase), update)
    assert update.applied, "a step never applied an update"
    after = net.state_dict()
    assert any(not _same(before[name], after[name]) for name in before), "a step changed no weight"


def steps_leave_nothing_behind(subject: Subject) -> None:
    """The number of live tensors does not grow from step to step."""
    method = subject.bind()
    torch.manual_seed(0)
    net = method.build()
    phase = next(method.phases(net))
    update = _CheckedUpdater(method, net, phase)
    for module in phase.modules or [net]:
        module.train()
    if phase.on_epoch:
        phase.on_epoch(0, EPOCHS)
    batch = _batch(method, phase)
    counts = []
    for _ in range(2):
        for _ in range(3):
            (phase.step or method.step)(net, batch, update)
        gc.collect()
        counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    assert counts[1] <= counts[0], f"{counts[0]} tensors were alive after three steps, {counts[1]} after six"


def claims_can_be_measured(subject: Subject) -> None:
    """Every claim names a metric of the registry, and what it is compared with is known or at least named."""
    for claim in subject.kind.card.claims:
        metric(claim.metric)
        assert claim.task and claim.setting and claim.source, f"claim {claim} lacks its task, setting or source"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    claims_can_be_measured,
    builds_and_answers_on_every_task,
    gradients_are_finite,
    steps_leave_nothing_behind,
    loss_falls,
    no_state_survives_a_batch,
    same_seed_same_result,
    trained_network_can_be_saved,
    spikes_are_what_it_declares,
)


class _CheckedUpdater(Updater):
    """An updater that looks at gradients before they are used."""

    def __init__(self, method: Method, net: nn.Module, phase: Phase) -> None:
        parameters = list(phase.parameters) if phase.parameters is not None else list(net.parameters())
        training = phase.training or method.training
        super().__init__(make_optimizer(parameters, training), StepClock(method.task.device), "fp32", method.task.device, 0.0)

    def apply(self) -> None:
        """Check, then apply."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        assert gradients, "no parameter has a gradient"
        assert all(gradient.isfinite().all() for gradient in gradients), "a gradient is not a number"
        super().apply()


def _same(one: object, two: object) -> bool:
    """Return whether two entries of a state dict are equal; an extra state need not be a tensor."""
    return torch.equal(one, two) if isinstance(one, Tensor) and isinstance(two, Tensor) else one == two


def _batch(method: Method, phase: Phase) -> Batch:
    data = method.task.split("train")
    chosen = torch.arange(len(data)) if phase.keep is None else phase.keep(targets(data)).nonzero().flatten()
    return method.task.gather("train", chosen[:16])


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
