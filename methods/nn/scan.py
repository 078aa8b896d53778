"""Scans of ``h[t] = a[t] * h[t-1] + b[t]`` in plain PyTorch, on any device, for where ``methods.nn.recurrence`` has no kernel.

Two neighbours make one step, ``(a1, b1) o (a2, b2) = (a1 a2, a2 b1 + b2)``, which is associative::

    SCANS["log_depth"]   neighbours are joined, the half as long sequence is scanned so, and the steps between follow: 2 log2 T levels,
                         work linear in T
    SCANS["chunked"]     chunks are scanned side by side, one loop for all of them, and a second loop carries states from chunk to chunk:
                         h = h_local + product(a) * h of the end of the chunk before; about sqrt(8 T) operations
    SCANS["serial"]      one operation per step: the fastest for few steps, or many numbers in each

Backward, ``g_h[t] = g[t] + a[t+1] * g_h[t+1]`` is the same from the end. Nothing is divided, so factors may be 0 or their products vanish.
Log depth: Blelloch, "Prefix sums and their applications" (1990), section 1.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

SHORTEST, LONGEST = 16, 256  # steps of a chunk

# ``core(links, b, reverse)``: ``links [T - 1, ...]`` are the factors between neighbours, ``a[1:]``.
Core = Callable[[Tensor, Tensor, bool], Tensor]


class Scan(NamedTuple):
    """A pair of functions as ``methods.nn.recurrence`` has them: both without autograd, neither changes what it is given.

    ``forward(a, b, state)`` returns ``h [T, B, ...]`` of ``a`` and ``b`` of that shape and ``state [B, ...]`` (None: zeros);
    ``backward(a, h, state, g, need_a)`` the gradients of b, of a (None unless needed) and of the state (None without one).
    """

    forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor | None, Tensor, bool], tuple[Tensor, Tensor | None, Tensor | None]]


def _of(core: Core) -> Scan:
    def forward(a: Tensor, b: Tensor, state: Tensor | None) -> Tensor:
        if state is not None:
            b = b.clone()
            b[0].addcmul_(a[0], state)
        return core(a[1:], b, False)

    def backward(a: Tensor, h: Tensor, state: Tensor | None, g: Tensor, need_a: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        g_b = core(a[1:], g, True)
        g_a = None
        if need_a:
            g_a = torch.empty_like(g_b)
            torch.mul(g_b[1:], h[:-1], out=g_a[1:])
            g_a[0] = 0 if state is None else g_b[0] * state
        return g_b, g_a, None if state is None else a[0] * g_b[0]

    return Scan(forward, backward)


def _log_depth(links: Tensor, b: Tensor, reverse: bool) -> Tensor:
    out = torch.empty_like(b)
    _halve(links, b, reverse, out)
    return out


def _halve(links: Tensor, b: Tensor, reverse: bool, out: Tensor) -> None:
    """Join pairs from where the recurrence starts; the later of each is a step of the shorter sequence."""
    steps = len(b)
    start = steps - 1 if reverse else 0
    out[start] = b[start]
    if steps == 1:
        return
    odd, count = steps % 2, (steps - 1) // 2  # ``count``: steps that are the earlier of a pair, but for the first
    if reverse:
        later, earlier, inner = slice(odd, None, 2), slice(odd + 1, None, 2), slice(odd, None, 2)
        between, rest, outer = links[odd + 1 :: 2], slice(1 - odd, steps - 2, 2), slice(1 - odd, None, 2)
    else:
        later, earlier, inner = slice(1, None, 2), slice(0, steps - odd, 2), slice(0, None, 2)
        between, rest, outer = links[1::2], slice(2, None, 2), slice(1, None, 2)
    pairs = len(b[later])
    joined = torch.addcmul(b[later], links[inner][:pairs], b[earlier])
    # From a pair to the next: the link that leads to it, and the one within it (reverse: within the pair that is nearer to the start).
    within = links[inner][: pairs - 1] if reverse else links[inner][1:pairs]
    found = out[later]
    _halve(within * between[: pairs - 1], joined, reverse, found)
    known = found[pairs - count :] if reverse else found[:count]
    torch.addcmul(b[rest], links[outer][:count], known, out=out[rest])


def _chunked(links: Tensor, b: Tensor, reverse: bool, length: int | None = None) -> Tensor:
    """Scan chunks of ``length`` steps side by side; the steps that are left over, and all if there are few, one by one."""
    out, steps = torch.empty_like(b), len(b) - 1
    length = length or min(max(math.isqrt(steps // 2), SHORTEST), LONGEST)
    chunks = steps // length if steps >= 2 * length else 0
    body = chunks * length
    start = steps if reverse else 0
    out[start] = b[start]
    if chunks:
        first = steps - body if reverse else 0
        factor = links[first : first + body].unflatten(0, (chunks, length))
        at = first if reverse else 1
        now, h = (whole[at : at + body].unflatten(0, (chunks, length)) for whole in (b, out))
        product = torch.empty_like(factor)
        order = range(length)[::-1] if reverse else range(length)
        h[:, order[0]], product[:, order[0]] = now[:, order[0]], factor[:, order[0]]
        for before, t in pairwise(order):
            torch.addcmul(now[:, t], factor[:, t], h[:, before], out=h[:, t])
            torch.mul(factor[:, t], product[:, before], out=product[:, t])
        end, state = order[-1], out[start]
        for chunk in range(chunks)[::-1] if reverse else range(chunks):
            state = h[chunk, end].addcmul_(product[chunk, end], state)
        states = torch.cat([h[1:, end], out[start:]] if reverse else [out[:1], h[:-1, end]])
        inside = slice(1, None) if reverse else slice(0, length - 1)
        h[:, inside].addcmul_(product[:, inside], states[:, None])
    rows, inputs, factors = out.unbind(0), b.unbind(0), links.unbind(0)
    if reverse:
        for t in range(steps - 1 - body, -1, -1):
            torch.addcmul(inputs[t], factors[t], rows[t + 1], out=rows[t])
    else:
        for t in range(1 + body, steps + 1):
            torch.addcmul(inputs[t], factors[t - 1], rows[t - 1], out=rows[t])
    return out


def chunked(length: int) -> Scan:
    """Return the chunked scan with chunks of ``length`` steps; raise ValueError for less than one."""
    if length < 1:
        raise ValueError(f"a chunk has at least one step, not {length}")
    return _of(partial(_chunked, length=length))


SCANS: dict[str, Scan] = {"log_depth": _of(_log_depth), "chunked": _of(_chunked), "serial": _of(partial(_chunked, length=1 << 62))}
