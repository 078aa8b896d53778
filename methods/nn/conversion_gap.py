"""What a converted network does otherwise than its ReLU network: distance of outputs, spikes of inactivated neurons, negative spikes, work.

::

    gap = ConversionGap(relu, spiking, connections)
    gap.add(image, sequence)       # [1, B, ...] and [T, B, ...]
    gap.figures()

Both networks have modules of the same names, ReLU in one and burst neurons in the other. ``SIN`` (spikes of inactivated neurons): the ReLU
gives 0, the spikes of the run sum to more than 0. Work: a spike train of whole numbers costs ``|s|`` accumulations per synapse that it
reaches, a negative spike one; the constant current of the image is worked out once; the ReLU network multiplies at every synapse. The
definitions of SIN and of a negative spike's cost are those of "Spike Calibration" (Li et al., 2022), the rest is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.energy import joules
from harness.meters.synops import SynopsMeter, fan_out
from methods.nn.burst import BurstNeuron
from methods.nn.calibration import watching
from methods.nn.wiring import Connection


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Return ``KL = sum p log(p / q)`` of logits ``[B, K]``, p of ``wanted`` and q of ``found``, averaged over samples."""
    p, q = wanted.log_softmax(-1), found.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()


def squared_error(wanted: Tensor, found: Tensor) -> Tensor:
    """Return the mean squared error of raw answers ``[B, ...]``."""
    return (wanted - found).square().mean()


class ConversionGap:
    """Figures of the difference, summed over batches; ``connections`` None where scales stay in the neurons: then work is not counted."""

    def __init__(self, relu: nn.Module, spiking: nn.Module, connections: Sequence[Connection] | None) -> None:
        """Compare the two networks."""
        self._relu, self._spiking = relu, spiking
        self._neurons = {m: name for name, m in spiking.named_modules() if isinstance(m, BurstNeuron)}
        names = {m: name for name, m in spiking.named_modules()}
        self._fed = {c.synapse: (names[c.synapse], c.source is None) for c in connections or ()}
        self._reached: dict[nn.Module, Tensor] = {}
        self._sin: dict[str, list[float]] = {}  # inactivated units that spiked, units
        self._samples = 0
        self._spikes = {"spikes": 0.0, "unit_spikes": 0.0, "negative_spikes": 0.0}
        self._accumulations = self._first = self._macs = 0.0

    @torch.no_grad()
    def add(self, image: Tensor, run: Callable[[], Any]) -> None:
        """Add a batch: ``image [1, B, ...]`` for the ReLU network; ``run`` simulates the spiking one on it, in parts if it likes."""
        resting: dict[str, Tensor] = {}
        totals: dict[str, Tensor] = {}
        twins = {m: name for name, m in self._relu.named_modules() if name in set(self._neurons.values())}
        with SynopsMeter(self._relu) as meter, watching(twins, lambda m, output: resting.__setitem__(twins[m], output[0] == 0)):
            self._relu(image)
        count = meter.result(image.shape[1])
        for name, data in self._fed.values():
            self._macs += count.layers[name].dense * image.shape[1]
            self._first += count.layers[name].dense * image.shape[1] * data

        def see(module: nn.Module, output: Tensor) -> None:
            name, units = self._neurons[module], module.units(output)  # type: ignore[index, operator]
            total = units.sum(0)
            totals[name] = totals[name] + total if name in totals else total
            self._spikes["spikes"] += float(units.count_nonzero())
            self._spikes["unit_spikes"] += float(units.abs().sum(dtype=torch.float64))
            self._spikes["negative_spikes"] -= float(units.clamp(max=0).sum(dtype=torch.float64))

        hooks = [synapse.register_forward_pre_hook(self._accumulate) for synapse, (_, data) in self._fed.items() if not data]
        try:
            with watching(self._neurons, see):
                run()
        finally:
            for hook in hooks:
                hook.remove()
        for name, total in totals.items():
            sums = self._sin.setdefault(name, [0.0, 0.0])
            sums[0] += float((resting[name] & (total > 0)).sum())
            sums[1] += total.numel()
        self._samples += image.shape[1]

    def _accumulate(self, synapse: Any, args: tuple[Tensor, ...]) -> None:
        """Add ``|s|`` accumulations for every synapse that a spike reaches."""
        trains = args[0].abs().sum((0, 1), dtype=torch.float64)
        if synapse not in self._reached:
            self._reached[synapse] = fan_out(synapse, synapse.weight != 0, trains.shape)
        self._accumulations += float((trains * self._reached[synapse]).sum())

    def figures(self) -> dict[str, Any]:
        """Return figures per sample: spikes (elements that are not 0), unit spikes (a burst of k is k), negative ones, SIN by layer, work.

        ``energy_ratio``: energy of the spiking network, one multiplication per synapse of the image and the accumulations, over that of
        the ReLU network, which skips nothing (constants of 45 nm: ``harness.energy``).
        """
        found: dict[str, Any] = {f"{name}_per_sample": count / self._samples for name, count in self._spikes.items()}
        found["sin_ratio"] = {name: spiked / units for name, (spiked, units) in self._sin.items()}
        if self._fed:
            found["accumulations_per_sample"] = self._accumulations / self._samples
            found["energy_ratio"] = joules(self._accumulations, self._first) / joules(0, self._macs)
        return found
