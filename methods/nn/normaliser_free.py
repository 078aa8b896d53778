"""The parts of a network without normalisation of currents: sWS synapses, spikes counted as 2.74 each, linear read-outs.

For methods that are compared on the same normaliser-free network, with different learning rules. Where the input is data (``first``) it
is not scaled. Source: the networks of "Online Training Through Time for Spiking Neural Networks" (Xiao et al., NeurIPS 2022). Delay lines
and detection are ours.
"""

from __future__ import annotations

from methods.nn.weight_standardisation import SPIKE_SCALE, ScaledConv2d, ScaledLinear, StandardisedConv2d, StandardisedDelayLine


def conv(features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> StandardisedConv2d:
    """Return an sWS convolution with bias on ``[T, B, C, H, W]``."""
    return StandardisedConv2d(features_in, features_out, kernel, stride, 1.0 if first else SPIKE_SCALE)


def delay_line(features_in: int, features_out: int, taps: int, dilation: int, first: bool = False) -> StandardisedDelayLine:
    """Return an sWS synapse with delays and a bias on ``[T, B, C]``."""
    return StandardisedDelayLine(features_in, features_out, taps, dilation, 1.0 if first else SPIKE_SCALE)


def readout(features_in: int, features_out: int) -> ScaledLinear:
    """Return the plain linear read-out of a classifier."""
    return ScaledLinear(features_in, features_out)


def readout_conv(features_in: int, features_out: int) -> ScaledConv2d:
    """Return the plain 1x1 read-out of a detector."""
    return ScaledConv2d(features_in, features_out, 1)
