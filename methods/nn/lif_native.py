"""The native LIF: one pass over time each way on the CPU, for the options of ``methods.nn.neuron.LIF``. Recursion: ``lif_operator``.

Currents in float32, float64 or bfloat16; for bfloat16 state and arithmetic are float32, so that its spikes are those of the same numbers
in float32, as with the Triton kernels, and not those of PyTorch's operations in bfloat16. Potentials are kept in that precision.

What a layer learns is passed as a number, or per channel as C numbers and the place of the channels within a step (per neuron each is a
channel): nothing of the size of the sequence is made for it. "bits" keeps the spike and whether u lies in the rectangle's window, eight
neurons to a byte: with those two, h and 1 - s are exact. That is 2 bits per neuron-step, and one more per neuron to tell apart what is not
a number; without a hard reset or a learnt threshold the window alone, 1 bit.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import torch
from torch import Tensor

from methods.nn import native
from methods.nn.layout import arranged, like, step_like
from methods.nn.lif_operator import LIFOperator, channel_stride, gathered, make_kept, placed, state_type
from methods.nn.lif_settings import CURRENT, Flags, Numbers, kept, planes

SCRATCH = 1 << 19  # numbers per thread when potentials are recomputed: about what a second-level cache holds


@lru_cache(maxsize=256)
def _neuron(numbers: tuple[float, ...], flags: tuple[int, ...], bits: int) -> native.Neuron:
    n, f = Numbers(*numbers), Flags(*flags)
    return native.Neuron(f.reset, f.attached, f.strict, f.surrogate, f.scaled, f.refractory, bits, n.v_init, n.c0, n.c1, n.c2)


@lru_cache(maxsize=256)
def _fixed(leak: float, threshold: float, scaled: int) -> native.Values:
    return native.Values(leak, 1 - leak if scaled else 1.0, threshold)


def _values(
    leak: Tensor | None, threshold: Tensor | None, channels: int, sequence: Tensor, numbers: Numbers, flags: Flags
) -> tuple[native.Values, tuple[Tensor | None, ...]]:
    """Return leak, gain and threshold, rounded as PyTorch would, and the tensors that must outlive the call."""
    if leak is None and threshold is None:
        return _fixed(numbers.leak, numbers.threshold, flags.scaled), ()
    values, dtype = native.Values(numbers.leak, 1 - numbers.leak if flags.scaled else 1.0, numbers.threshold), state_type(sequence.dtype)
    if channels:
        leak, threshold = (part if part is None else placed(part.to(dtype), sequence) for part in (leak, threshold))
        values.leaks, values.thresholds = _address(leak), _address(threshold)
        return values, (leak, threshold)
    if leak is not None:
        values.leak, values.gain = leak.item(), (1 - leak.to(dtype)).item() if flags.scaled else 1.0
    if threshold is not None:
        values.threshold = threshold.item()
    return values, ()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _arranged(step: Tensor | None, model: Tensor) -> Tensor | None:
    return None if step is None else arranged(step, model)


def forward(
    current: Tensor, v0: Tensor | None, r0: Tensor | None, leak: Tensor | None, threshold: Tensor | None, numbers: Numbers, flags: Flags
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return spikes and, where wanted, potentials or bits, the state after the last step and its silence; ``current`` must be settled."""
    real = state_type(current.dtype)
    spikes = like(current)
    potential, bits = make_kept(current, leak, threshold, flags)
    v1 = step_like(current, real) if flags.carry else None
    r1 = step_like(current, real) if flags.carry and flags.refractory else None
    steps = len(current)
    channels, inner = channel_stride(spikes, leak, threshold)
    deep = 0 if bits is None else planes(threshold, flags)
    half = current.dtype != real
    rich = bool(channels or half or deep or flags.refractory)
    grid = native.grid(steps, spikes.numel() // steps, rich=rich, channels=channels, inner=inner, half=half)
    values, alive = _values(leak, threshold, channels, spikes, numbers, flags)
    start, silence = _arranged(v0, current), _arranged(r0, current)
    native.load(real).lif_forward(
        ctypes.byref(_neuron(numbers, flags, deep)), ctypes.byref(grid), ctypes.byref(values), current.data_ptr(), current.stride(0),
        _address(start), _address(silence), spikes.data_ptr(), _address(potential), _address(bits), _address(v1), _address(r1),
    )  # fmt: skip
    del alive
    return spikes, potential if bits is None else bits, v1, r1


def backward(
    out: Tensor,
    found: Tensor,
    v0: Tensor | None,
    r0: Tensor | None,
    leak: Tensor | None,
    threshold: Tensor | None,
    g: Tensor,
    g_v1: Tensor | None,
    numbers: Numbers,
    flags: Flags,
    need_v0: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Fill ``out`` with the gradient of the currents; return those of the state before, of leak and of threshold.

    ``found`` is what was kept; ``g`` and ``g_v1`` are the gradients of spikes and of the last state. Raises MemoryError when there is no
    room to compute potentials again.
    """
    steps, real = len(out), state_type(out.dtype)
    packed = found.dtype == torch.uint8
    current = found if kept(leak, flags) == CURRENT else None
    deep = planes(threshold, flags) if packed else 0
    potential = found if current is None and not packed else None
    channels, inner = channel_stride(out, leak, threshold)
    half = out.dtype != real
    rich = bool(channels or half or deep or flags.refractory or leak is not None or threshold is not None)
    room = 0 if potential is not None or packed else SCRATCH // (3 if flags.refractory else 1)
    grid = native.grid(steps, out.numel() // steps, room, rich=rich, channels=channels, inner=inner, half=half)
    values, alive = _values(leak, threshold, channels, out, numbers, flags)
    upstream, end = arranged(g, out), _arranged(g_v1, out)
    start, silence = _arranged(v0, out), _arranged(r0, out)
    g_v0 = step_like(out, real) if need_v0 else None
    count = out[0].numel() if channels else native.blocks(grid)
    sums = [None if parameter is None else torch.empty(count, dtype=torch.float64) for parameter in (leak, threshold)]
    failed = native.load(real).lif_backward(
        ctypes.byref(_neuron(numbers, flags, deep)), ctypes.byref(grid), ctypes.byref(values), _address(potential),
        found.data_ptr() if packed else None, _address(current), found.stride(0), _address(start), _address(silence),
        upstream.data_ptr(), upstream.stride(0), _address(end), out.data_ptr(), _address(g_v0), *map(_address, sums),
    )  # fmt: skip
    del alive
    if failed:
        raise MemoryError(f"no memory to recompute the potentials of {steps} steps; save='potential' needs none")
    g_leak, g_threshold = (gathered(part, of, out, channels) for part, of in zip(sums, (leak, threshold), strict=True))
    return g_v0, g_leak, g_threshold


lif = LIFOperator("lif", forward, backward, "cpu")
