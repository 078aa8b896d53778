"""The LIF in Triton: one pass over time each way, for the options of ``methods.nn.neuron.LIF``. Tested in Triton's interpreter.

Currents in float32, bfloat16 or float16; state and arithmetic are float32 (a bfloat16 sequence therefore has the spikes of the same numbers
in float32, not those of PyTorch's operations in bfloat16). The recursions are those of ``methods.nn.lif_native``. Kept for the backward
pass: the potentials in float32 ("potential": rounded ones could fall on the other side of the threshold), or the currents as they are
("recompute"; each program computes the potentials of its block again, into a scratch buffer that is small enough for the second-level
cache). A learnt leak is read by the kernels, so that nothing waits for the device; its gradient is the sum, in double precision, of one
partial sum per block. The state that is carried on is float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn import gpu, lif_kernels
from methods.nn.layout import arranged, like, settled, step_like
from methods.nn.lif_native import Flags, Numbers

REALS = (torch.float32, torch.bfloat16, torch.float16)
SCRATCH = 32 << 20  # bytes of potentials computed again at any time; the second-level cache of a current GPU holds 40 to 60 MB
PROGRAMS = 4  # per multiprocessor at least, however long the sequence


def why_not(current: Tensor, v: Tensor | None) -> str | None:
    """Return why the kernels cannot take ``current`` and the state ``v``, or None if they can."""
    if current.dtype not in REALS:
        return f"it knows {', '.join(str(known).removeprefix('torch.') for known in REALS)}, the current is {current.dtype}"
    if v is not None and (v.dtype != torch.float32 or v.shape != current.shape[1:]):
        return f"the state must be torch.float32 {list(current.shape[1:])}, not {v.dtype} {list(v.shape)}"
    return gpu.why_not(current.device)


def block(size: int) -> int:
    """Return how many neurons a program takes: few where there are few, so that all multiprocessors have some."""
    return 256 if size < 1 << 20 else 1024


def _keeps_input(leak: Tensor | None, flags: Flags) -> bool:
    return bool(flags.recompute or (leak is not None and flags.scaled))


def _scalars(leak: Tensor | None, numbers: Numbers, flags: Flags) -> tuple[float, float]:
    """Return leak and gain; where the leak is learnt, the kernels compute both."""
    return (0.0, 0.0) if leak is not None else (numbers.leak, 1 - numbers.leak if flags.scaled else 1.0)


def forward(
    current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: Numbers, flags: Flags
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return spikes and, where wanted, potentials ``[T, B, ...]`` and the state after the last step ``[B, ...]``.

    ``current`` must be settled (see ``methods.nn.layout``).
    """
    spikes = like(current)
    potential = like(current, torch.float32) if flags.keep and not _keeps_input(leak, flags) else None
    v1 = step_like(current, torch.float32) if flags.carry else None
    steps = len(current)
    size = spikes.numel() // steps
    if size:
        width = block(size)
        with gpu.device_of(current):
            lif_kernels.forward[(triton.cdiv(size, width),)](
                current, current.stride(0), None if v0 is None else arranged(v0, current), leak, spikes, potential, v1, steps, size,
                *_scalars(leak, numbers, flags), numbers.threshold, numbers.v_init,
                RESET=flags.reset, STRICT=bool(flags.strict), SCALED=bool(flags.scaled), BLOCK=width, enable_fp_fusion=False,
            )  # fmt: skip
    return spikes, potential, v1


def _programs(blocks: int, bytes_each: int, kept: Tensor) -> int:
    """Return how many programs to start, so that their scratch stays in the cache, but at least enough to fill the device."""
    return min(blocks, max(PROGRAMS * gpu.multiprocessors(kept), SCRATCH // bytes_each))


def backward(
    kept: Tensor,
    v0: Tensor | None,
    leak: Tensor | None,
    g: Tensor | None,
    g_v1: Tensor | None,
    dtype: torch.dtype,
    numbers: Numbers,
    flags: Flags,
    need: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of current, initial state and leak; ``kept``: currents or potentials; ``need`` of the last two."""
    steps = len(kept)
    recompute = _keeps_input(leak, flags)
    g_current = like(kept, dtype)
    size = g_current.numel() // steps
    width = block(size)
    blocks = triton.cdiv(size, width)
    g_v0 = step_like(kept, torch.float32) if need[0] else None
    sums = kept.new_empty(blocks, dtype=torch.float64) if need[1] else None
    if size:
        upstream = torch.zeros_like(g_current) if g is None else arranged(g, kept)
        programs = _programs(blocks, steps * width * 4, kept) if recompute else blocks
        scratch = kept.new_empty(programs * steps * width, dtype=torch.float32) if recompute else None
        with gpu.device_of(kept):
            lif_kernels.backward[(programs,)](
                None if recompute else kept, kept if recompute else None, kept.stride(0), None if v0 is None else arranged(v0, kept),
                upstream, upstream.stride(0), None if g_v1 is None else arranged(g_v1, kept), leak, scratch, g_current, g_v0, sums,
                triton.cdiv(blocks, programs), steps, size, *_scalars(leak, numbers, flags), *numbers[1:],
                RESET=flags.reset, ATTACHED=bool(flags.attached), STRICT=bool(flags.strict), SURROGATE=flags.surrogate,
                SCALED=bool(flags.scaled), BLOCK=width, enable_fp_fusion=False,
            )  # fmt: skip
    return g_current, g_v0, None if sums is None else sums.sum().to(leak.dtype)


class _TritonLIF(torch.autograd.Function):
    """The eager form."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: Numbers, flags: Flags
    ) -> tuple[Tensor, Tensor | None]:
        spikes, potential, v1 = forward(current, v0, leak, numbers, flags)
        ctx.save_for_backward(current if potential is None else potential, v0, leak)
        ctx.set_materialize_grads(False)
        ctx.settings = current.dtype, numbers, flags
        return spikes, v1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, v0, leak = ctx.saved_tensors
        if grads[0] is None and grads[1] is None:
            return None, None, None, None, None
        _, need_v0, need_leak, *_ = ctx.needs_input_grad
        return *backward(kept, v0, leak, *grads, *ctx.settings, (need_v0, need_leak)), None, None


def lif(current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: Numbers, flags: Flags) -> tuple[Tensor, Tensor | None]:
    """Return spikes ``[T, B, ...]`` and the state after the last step (None unless ``flags.carry``). ``flags.keep`` is set here."""
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (current, v0, leak))
    flags = flags._replace(keep=int(differentiable))
    current = settled(current)
    if torch.compiler.is_compiling():
        spikes, _, v1 = operator(current, v0, leak, list(numbers), list(flags))
        return spikes, v1 if flags.carry else None
    if differentiable:
        return _TritonLIF.apply(current, v0, leak, numbers, flags)
    spikes, _, v1 = forward(current, v0, leak, numbers, flags)
    return spikes, v1


# The same as operators. An operator returns tensors only, and none of them may be an input: what is absent is empty.


@torch.library.custom_op("spikebench::lif_triton", mutates_args=())
def operator(
    current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: list[float], flags: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """``forward`` as an operator."""
    found = forward(settled(current), v0, leak, Numbers(*numbers), Flags(*flags))
    return tuple(current.new_empty(0) if part is None else part for part in found)


@operator.register_fake
def _(current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: list[float], flags: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    named = Flags(*flags)
    current = settled(current)
    none = current.new_empty(0)
    potential = like(current, torch.float32) if named.keep and not _keeps_input(leak, named) else none
    return like(current), potential, step_like(current, torch.float32) if named.carry else torch.empty_like(none)


@torch.library.custom_op("spikebench::lif_triton_backward", mutates_args=())
def backward_operator(
    kept: Tensor,
    v0: Tensor | None,
    leak: Tensor | None,
    g: Tensor,
    g_v1: Tensor | None,
    numbers: list[float],
    flags: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """``backward`` as an operator."""
    need = v0 is not None, leak is not None
    found = backward(settled(kept), v0, leak, g, g_v1, g.dtype, Numbers(*numbers), Flags(*flags), need)
    return tuple(kept.new_empty(0) if part is None else part for part in found)


@backward_operator.register_fake
def _(
    kept: Tensor,
    v0: Tensor | None,
    leak: Tensor | None,
    g: Tensor,
    g_v1: Tensor | None,
    numbers: list[float],
    flags: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    kept = settled(kept)
    g_v0 = kept.new_empty(0) if v0 is None else step_like(kept, torch.float32)
    return like(kept, g.dtype), g_v0, kept.new_empty(0) if leak is None else torch.empty_like(leak)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    current, v0, leak, numbers, flags = inputs
    ctx.save_for_backward(current if _keeps_input(leak, Flags(*flags)) else output[1], v0, leak)
    ctx.settings = numbers, flags


def _differentiate(ctx: Any, g: Tensor, g_potential: Tensor, g_v1: Tensor) -> tuple[Tensor | None, ...]:
    kept, v0, leak = ctx.saved_tensors
    numbers, flags = ctx.settings
    g_current, g_v0, g_leak = backward_operator(kept, v0, leak, g, g_v1 if Flags(*flags).carry else None, numbers, flags)
    return g_current, None if v0 is None else g_v0, None if leak is None else g_leak, None, None


operator.register_autograd(_differentiate, setup_context=_setup)
