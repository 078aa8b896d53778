"""The LIF in Triton: one pass over time each way, for the options of ``methods.nn.neuron.LIF``. Tested in Triton's interpreter.

Currents in float32, bfloat16 or float16; state and arithmetic are float32 (a bfloat16 sequence therefore has the spikes of the same numbers
in float32, not those of PyTorch's operations in bfloat16). The recursions are those of ``methods.nn.lif_operator``. Potentials are kept in
float32: rounded ones could fall on the other side of the threshold. From currents ("recompute") each program computes the potentials of its
block again, into a scratch buffer that is small enough for the second-level cache. What is learnt is read by the kernels, so that nothing
waits for the device; its gradient is the sum, in double precision, of one partial sum per block, or with channels per neuron. The state
that is carried on is float32. Neither refractory neurons nor packed bits.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from methods.nn import gpu, lif_kernels
from methods.nn.layout import arranged, like, step_like
from methods.nn.lif_operator import LIFOperator, channel_stride, gathered, make_kept, placed
from methods.nn.lif_settings import CURRENT, Flags, Numbers, kept

REALS = (torch.float32, torch.bfloat16, torch.float16)
SCRATCH = 32 << 20  # bytes of potentials computed again at any time; the second-level cache of a current GPU holds 40 to 60 MB
PROGRAMS = 4  # per multiprocessor at least, however long the sequence


def why_not(current: Tensor, refractory: int, save: str) -> str | None:
    """Return why the kernels cannot take ``current`` with these options, or None if they can."""
    if current.dtype not in REALS:
        return f"it knows {', '.join(str(known).removeprefix('torch.') for known in REALS)}, the current is {current.dtype}"
    if refractory:
        return "it does not know refractory neurons"
    if save == "bits":
        return "it does not pack bits; take save='auto', 'potential' or 'recompute'"
    return gpu.why_not(current.device)


def block(size: int) -> int:
    """Return how many neurons a program takes: few where there are few, so that all multiprocessors have some."""
    return 256 if size < 1 << 20 else 1024


def _scalars(leak: Tensor | None, numbers: Numbers, flags: Flags) -> tuple[float, float]:
    """Return leak and gain; where the leak is learnt, the kernels compute both."""
    return (0.0, 0.0) if leak is not None else (numbers.leak, 1 - numbers.leak if flags.scaled else 1.0)


def _arranged(step: Tensor | None, model: Tensor) -> Tensor | None:
    return None if step is None else arranged(step, model)


def forward(
    current: Tensor, v0: Tensor | None, r0: Tensor | None, leak: Tensor | None, threshold: Tensor | None, numbers: Numbers, flags: Flags
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return spikes and, where wanted, potentials ``[T, B, ...]`` and the state after the last step; ``current`` must be settled."""
    spikes = like(current)
    potential, _ = make_kept(current, leak, threshold, flags)
    v1 = step_like(current, torch.float32) if flags.carry else None
    steps = len(current)
    size = spikes.numel() // steps
    channels, inner = channel_stride(spikes, leak, threshold)
    if size:
        width = block(size)
        with gpu.device_of(current):
            lif_kernels.forward[(triton.cdiv(size, width),)](
                current, current.stride(0), _arranged(v0, current), placed(leak, spikes), placed(threshold, spikes), spikes, potential, v1,
                steps, size, channels, inner, *_scalars(leak, numbers, flags), numbers.threshold, numbers.v_init,
                RESET=flags.reset, STRICT=bool(flags.strict), SCALED=bool(flags.scaled), CHANNELS=bool(channels), BLOCK=width,
                enable_fp_fusion=False,
            )  # fmt: skip
    return spikes, potential, v1, None


def _programs(blocks: int, bytes_each: int, kept: Tensor) -> int:
    """Return how many programs to start, so that their scratch stays in the cache, but at least enough to fill the device."""
    return min(blocks, max(PROGRAMS * gpu.multiprocessors(kept), SCRATCH // bytes_each))


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

    ``found`` are currents or potentials; ``g`` and ``g_v1`` are the gradients of spikes and of the last state.
    """
    steps = len(out)
    recompute = kept(leak, flags) == CURRENT
    size = out.numel() // steps
    width = block(size)
    blocks = triton.cdiv(size, width)
    channels, inner = channel_stride(out, leak, threshold)
    g_v0 = step_like(out, torch.float32) if need_v0 else None
    count = size if channels else blocks
    sums = [None if parameter is None else out.new_empty(count, dtype=torch.float64) for parameter in (leak, threshold)]
    if size:
        upstream = arranged(g, out)
        programs = _programs(blocks, steps * width * 4, out) if recompute else blocks
        scratch = out.new_empty(programs * steps * width, dtype=torch.float32) if recompute else None
        with gpu.device_of(out):
            lif_kernels.backward[(programs,)](
                None if recompute else found, found if recompute else None, found.stride(0), _arranged(v0, out), upstream,
                upstream.stride(0), _arranged(g_v1, out), placed(leak, out), placed(threshold, out), scratch, out, g_v0, *sums,
                triton.cdiv(blocks, programs), steps, size, channels, inner, *_scalars(leak, numbers, flags), *numbers[1:],
                RESET=flags.reset, ATTACHED=bool(flags.attached), STRICT=bool(flags.strict), SURROGATE=flags.surrogate,
                SCALED=bool(flags.scaled), CHANNELS=bool(channels), BLOCK=width, enable_fp_fusion=False,
            )  # fmt: skip
    g_leak, g_threshold = (gathered(part, of, out, channels) for part, of in zip(sums, (leak, threshold), strict=True))
    return g_v0, g_leak, g_threshold


lif = LIFOperator("lif_triton", forward, backward)
