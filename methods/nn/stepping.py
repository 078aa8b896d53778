"""One time step at a time: modules that remember, and the context in which they do.

Outside the context a module sees whole sequences ``[T, B, ...]`` and starts each from rest. Inside, the same call may be
made with any number of steps, and state is carried from call to call::

    with stepping(net):
        outputs = torch.cat([net(x[t : t + 1]) for t in range(len(x))])

equals ``net(x)``. State is cleared on entering and on leaving, so none survives a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class FutureError(RuntimeError):
    """A module cannot take one step at a time, because it looks at steps to come."""


class Stateful(nn.Module):
    """Base of modules with a state: membrane potentials, traces, queues of past inputs, the index of the step."""

    def __init__(self) -> None:
        """Start without state, outside any stepping context."""
        super().__init__()
        self._stepping = False
        self._detach = False
        self._state: tuple[Tensor, ...] | None = None

    def carried(self) -> tuple[Tensor, ...] | None:
        """Return the state left by the call before, or None at the start of a sequence."""
        return self._state

    def carry(self, *state: Tensor) -> None:
        """Keep ``state`` for the next call if stepping; otherwise forget it."""
        if self._stepping:
            self._state = tuple(part.detach() for part in state) if self._detach else state


def is_stepping(net: nn.Module) -> bool:
    """Return whether a part of ``net`` carries its state from call to call now."""
    return any(module._stepping for module in net.modules() if isinstance(module, Stateful))


@contextmanager
def stepping(net: nn.Module, detach: bool = False) -> Iterator[None]:
    """Let every stateful part of ``net`` carry its state from call to call.

    ``detach`` cuts the graph between calls: gradients then flow through the layers of one call only, and nothing is kept
    for earlier ones (online rules). Raises RuntimeError when ``net`` is already stepping.
    """
    parts = [module for module in net.modules() if isinstance(module, Stateful)]
    if is_stepping(net):
        raise RuntimeError("the network is already stepping; leave the first `with stepping(net)` before entering another")
    for part in parts:
        part._stepping, part._detach, part._state = True, detach, None
    try:
        yield
    finally:
        for part in parts:
            part._stepping, part._detach, part._state = False, False, None
