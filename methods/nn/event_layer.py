"""``EventLayer``: a layer that maps spike times to spike times, and shows the harness what it did.

A subclass says how neurons respond, ``respond(times)``; the synapse holds the weights::

    class Mine(EventLayer):
        def respond(self, times):                # [B, F, K] -> [B, N, K']
            return response(times, self.synapse.weight)

    layer = Mine(EventLinear(64, 100))

What is counted: in eval mode each layer hands its input spikes, as 0 and 1 per slot, to its synapse, and its own spikes to an ``Emitter``,
so that the meters of the harness, which listen to modules, find every spike and every synaptic operation exactly once. The leading axis
they see, T for clocked networks, is the slot here: the k-th spike of each neuron.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from methods.nn.spike_times import fired, merged


class EventLinear(nn.Linear):
    """Weights ``[N, F]`` of a dense layer of event neurons, without bias."""

    def __init__(self, features_in: int, features_out: int) -> None:
        """Make the weights; how they start is the layer's to say."""
        super().__init__(features_in, features_out, bias=False)

    def forward(self, spikes: Tensor) -> Tensor:
        """Take the input ``spikes [K, B, F]`` (0 or 1) for whoever counts; nothing is computed: zeros ``[K, B, N]`` that take no memory."""
        return self.weight.new_zeros(()).expand(*spikes.shape[:-1], self.out_features)


class EventConv2d(nn.Conv2d):
    """Filters ``[N, C, k, k]`` of a valid convolution of event neurons, stride 1, without bias."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        """Make the weights; how they start is the layer's to say."""
        super().__init__(channels_in, channels_out, kernel, bias=False)

    def forward(self, spikes: Tensor) -> Tensor:
        """Take the input ``spikes [K, B, C, H, W]`` for whoever counts; nothing is computed: zeros of the output's shape."""
        *lead, _, height, width = spikes.shape
        down, across = self.kernel_size
        return self.weight.new_zeros(()).expand(*lead, self.out_channels, height - down + 1, width - across + 1)


class Emitter(nn.Module):
    """Shows the spikes of a layer to the meters."""

    spike_kind = "binary"

    def forward(self, times: Tensor) -> Tensor:
        """Return 1 where a slot of ``times [B, ..., K]`` has a spike, else 0: ``[K, B, ...]``."""
        return fired(times).movedim(-1, 0)


class EventLayer(nn.Module):
    """Synapse and neurons: input spike times to ``respond``'s output, spike times if it is ``spiking``, else potentials."""

    spiking = True

    def __init__(self, synapse: EventLinear | EventConv2d) -> None:
        """Join synapse and neurons."""
        super().__init__()
        self.synapse, self.emitter = synapse, Emitter()

    @abstractmethod
    def respond(self, times: Tensor) -> Tensor:
        """Return the output of the neurons: sorted spike times ``[B, N, K']`` (``[B, C, H, W, K']`` after a convolution).

        ``times`` are ``[B, F, K]`` for a dense layer, flattened from images if need be, and ``[B, C, H, W, K]`` for a convolution.
        """

    def forward(self, times: Tensor) -> Tensor:
        """Return the output for ``times [B, ..., K]``."""
        if isinstance(self.synapse, nn.Linear):
            times = times.flatten(1, -2)
        if not self.training:
            self.synapse(fired(times).movedim(-1, 0))
        output = self.respond(times)
        if self.spiking and not self.training:
            self.emitter(output)
        return output


class MergePool2d(nn.Module):
    """Aggregation of ``size x size`` places: the sorted merge of their trains, ``[B, C, H, W, K]`` to ``[B, C, H', W', size^2 K]``.

    No neuron and no weight; errors go back through the permutation of the sort unchanged. A border that does not fill a window is left out,
    as in ordinary pooling. Source: BATS (Bacho, Chu, 2022), official code.
    """

    def __init__(self, size: int = 2) -> None:
        """Set the side of a window."""
        super().__init__()
        self.size = size

    def forward(self, times: Tensor) -> Tensor:
        """Return the merged trains."""
        size = self.size
        height, width = times.shape[2] // size, times.shape[3] // size
        windows = times[:, :, : height * size, : width * size].unflatten(3, (width, size)).unflatten(2, (height, size))
        return merged(windows.movedim(3, 4).flatten(4, 5), 4)
