"""``EventExactMethod``: networks whose layers exchange spike times, trained by exact gradients without a time grid.

An event-exact plugin says three things; code of inputs, network, evaluation and figures are here::

    layer(features_in, features_out, place) -> EventLayer     neurons with their exact rule, spike times to spike times
    spike_loss(output, targets) -> loss                       whose backward pass starts from the times of the last layer
    answer(output, instants) -> [T, B, classes]               what would be answered at each instant, from what has happened until then

Time is real (seconds). Images are coded by latency, ``t = input_window (1 - x)``, black pixels silent; of event frames every frame in which
a pixel saw something is one spike at the frame's middle, the frames sharing ``input_window`` (ours: recordings are played at the speed that
the neurons are made for). The simulation ends at ``simulated`` seconds. ``steps`` is only the number of instants, evenly spread over the
simulated time, at which the answer is read for accuracy-against-time curves: neither training nor the final answer depends on it.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Method, Prediction, Update
from harness.task import Batch
from methods.nn.event_layer import EventLayer
from methods.nn.spike_times import counts, frame_times, latency
from methods.nn.watch import Watch

REPORTED = 256  # test samples that the figures of ``report`` are of
READ = 100  # instants among which the time of decision is found


class EventOptions(plugin.Options):
    """What every event-exact method lets a user set; subclasses change defaults and add their own."""

    hidden: tuple[int, ...] = Field((100,), description="neurons of the hidden layers of the dense network")
    input_window: float = Field(0.1, description="seconds in which the input spikes arrive", gt=0)
    simulated: float = Field(0.2, description="seconds that the network is simulated (T_sim)", gt=0)


class EventExactMethod(Method):
    """A method with closed-form or root-found spike times and exact gradients."""

    heads = ("classify",)
    cannot = {
        "sequences": "the numbers of a sequence are no spikes; images (by latency) and event frames have a code by spike times",
        "detection": "the losses on spike counts and spike times are for one class per sample",
    }

    Options = EventOptions
    options: Any

    # What a method says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def layer(self, features_in: int, features_out: int, place: int) -> EventLayer:
        """Return the dense layer at ``place`` (from 0; the last one is ``len(self.options.hidden)``)."""

    @abstractmethod
    def spike_loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the training loss (mean over the batch) of the last layer's output for classes ``[B]``."""

    @abstractmethod
    def answer(self, output: Tensor, instants: Tensor) -> Tensor:
        """Return the finite scores ``[T, B, classes]`` as of each of the ``instants [T]`` (seconds), the largest wins."""

    def answers(self, net: nn.Module, times: Tensor, instants: Tensor) -> Tensor:
        """Return the scores ``[T, B, classes]`` for input ``times`` as of each of the ``instants [T]``, in one event-driven run."""
        return self.answer(net(times), instants)

    # What follows from it -------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """Return the dense network of the options."""
        sizes = [torch.Size(self.task.input_shape).numel(), *self.options.hidden, self.task.head.classes]
        return nn.Sequential(*(self.layer(*pair, place) for place, pair in enumerate(zip(sizes[:-1], sizes[1:], strict=True))))

    @cached_property
    def _range(self) -> tuple[Tensor, Tensor]:
        """What black and white are after the task's normalisation ``[1, C, H, W]``."""
        black = torch.zeros(1, *self.task.input_shape, device=self.task.device)
        return self.task.prepare(black), self.task.prepare(torch.ones_like(black))

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the input spike times ``[B, ..., K]`` of a batch of images or event frames."""
        window = self.options.input_window
        if self.task.temporal:
            return frame_times(self.task.encode(inputs, self.steps), window)
        black, white = (level.to(inputs) for level in self._range)
        intensity = (inputs - black) / (white - black)
        # Normalising and back leaves rounding errors: what differs from black by less is black.
        return latency(torch.where(intensity > 1e-5, intensity, 0).clamp(max=1), window)

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Run the network event by event and back-propagate through spike times."""
        loss = self.spike_loss(net(self.encode(batch.inputs)), batch.targets)
        update.minimise(loss)
        return loss

    def instants(self, number: int) -> Tensor:
        """Return so many instants (seconds), evenly spread, the last at the end of the simulation."""
        return torch.arange(1, number + 1, device=self.task.device) * (self.options.simulated / number)

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return the answers as of ``steps`` instants of the simulated time, in one event-driven run."""
        return Prediction.at_every_step(self.answers(net, self.encode(inputs), self.instants(self.steps)))

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return figures of (at most 256) test samples.

        Layer by layer: spikes per neuron and sample; the fraction of neurons without a spike in a sample, ``silent``, and in all samples,
        ``dead``. ``decision_time``: seconds after which the answer does not change any more, mean over samples.
        """
        net.eval()
        batch = next(self.task.batches("test", batch_size=REPORTED))
        layers = {name: module for name, module in net.named_modules() if isinstance(module, EventLayer) and module.spiking}
        instants = self.instants(READ)
        with Watch(layers.values()) as seen:
            answers = self.answers(net, self.encode(batch.inputs), instants)
        numbers = [counts(times).flatten(1) for times in seen.outputs]
        decided = answers.argmax(-1)
        changed = (decided != decided[-1]).long()
        last_change = (changed * torch.arange(1, READ + 1, device=changed.device).unsqueeze(1)).amax(0)
        return {
            **super().report(net),
            "spikes_per_neuron": {name: float(n.mean()) for name, n in zip(layers, numbers, strict=True)},
            "silent": {name: float((n == 0).float().mean()) for name, n in zip(layers, numbers, strict=True)},
            "dead": {name: float((n == 0).all(0).float().mean()) for name, n in zip(layers, numbers, strict=True)},
            "decision_time": float(instants[last_change.clamp(max=READ - 1)].mean()),
        }
