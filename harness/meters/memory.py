"""Training memory that can be counted exactly: saved for backward, transient, parameters, optimiser state.

One training step, measured once (the step is slower, its values are the same)::

    with SavedTensors(net) as saved:
        method.step(net, batch, update)
    saved.peak  # bytes

What the four parts count, all in bytes of distinct storages (a view holds all of its storage, and two views share one):

=============  ====================================================================================================
saved          what autograd holds for backward passes to come, at its peak: inputs and results that operations save, and
               ``save_for_backward`` of custom functions. Parameters and buffers of the network are left out.
transient      all storages created within the step and alive at once, at their peak: saved tensors, gradients, temporaries
parameters     parameters and buffers of the network
optimiser      state of the optimiser
=============  ====================================================================================================

``saved`` follows from the operations alone: it does not depend on the allocator, on timing or on the load of the machine.
It does not see tensors that a method keeps outside of the graph (traces of online rules, attributes set on ``ctx``, activations
recomputed by ``torch.utils.checkpoint`` during the backward pass); ``transient`` sees those. Neither sees work space that a kernel
allocates for itself. ``torch.func`` transforms refuse to run within ``SavedTensors``, a limit of torch.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

StorageKey = tuple[torch.device, int]


def storages(tensor: Tensor) -> Iterator[torch.UntypedStorage]:
    """Yield the storages that hold ``tensor`` in memory: one if it is dense, several if it is sparse, none on ``meta``."""
    if tensor.device.type == "meta":
        return
    if tensor.layout is torch.strided:
        yield tensor.untyped_storage()
    elif tensor.layout is torch.sparse_coo:
        yield from (part.untyped_storage() for part in (tensor._indices(), tensor._values()))
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (part.untyped_storage() for part in (tensor.crow_indices(), tensor.col_indices(), tensor.values()))
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (part.untyped_storage() for part in (tensor.ccol_indices(), tensor.row_indices(), tensor.values()))
    else:
        raise TypeError(f"cannot count the bytes of a tensor of layout {tensor.layout}; strided and sparse tensors can be counted")


def _key(storage: torch.UntypedStorage) -> StorageKey:
    return storage.device, storage.data_ptr()


def distinct_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the distinct storages of ``tensors``."""
    return sum({_key(storage): storage.nbytes() for tensor in tensors for storage in storages(tensor)}.values())


def parameter_bytes(net: nn.Module) -> int:
    """Return the bytes of all parameters and buffers of ``net``, shared ones once."""
    return distinct_bytes(chain(net.parameters(), net.buffers()))


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of the tensors in the optimiser's state (moments, step counters), not of parameters or gradients."""
    return distinct_bytes(leaf for state in optimizer.state.values() for leaf in tree_iter(state) if isinstance(leaf, Tensor))


class _Held:
    """What autograd holds in place of a saved tensor; when it is let go, its meter counts down."""

    __slots__ = ("keys", "meter", "tensor", "version")

    def __init__(self, meter: SavedTensors, tensor: Tensor) -> None:
        self.meter = meter
        self.tensor = tensor.detach()  # an alias: an output kept as it is would keep alive the graph that keeps it
        self.version = tensor._version
        self.keys = meter._hold(self.tensor)

    def get(self) -> Tensor:
        # Autograd leaves this check to whoever hooks in; without it, a measured step would run where an ordinary one fails.
        if self.tensor._version != self.version:
            raise RuntimeError(
                f"a tensor of shape {list(self.tensor.shape)} that was saved for the backward pass has been modified in place since: "
                f"it is at version {self.tensor._version}, expected {self.version}"
            )
        return self.tensor

    def __del__(self) -> None:
        self.meter._let_go(self.keys)


class SavedTensors:
    """Context that counts the bytes autograd saves for backward: ``current`` now, ``peak`` at most so far.

    A graph that is freed counts down, also within the context, so that a rule with a backward pass per time step shows what it
    needs at once, not in sum. ``net``'s parameters and buffers are not counted. Reference cycles are collected on
    entering and not again before leaving, so that a method that makes some is charged for them in the same way every time.
    """

    def __init__(self, net: nn.Module | None = None) -> None:
        """Make a meter; use it for one ``with``."""
        self.current = 0
        self.peak = 0
        self._net = net
        self._left_out: set[StorageKey] = set()
        self._users: dict[StorageKey, list[int]] = {}  # storage -> [handles that hold it, bytes]
        self._hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Held(self, tensor), _Held.get)
        self._collecting = False

    def __enter__(self) -> SavedTensors:
        """Begin to count what is saved from here on."""
        if self._net is not None:
            owned = chain(self._net.parameters(), self._net.buffers())
            self._left_out = {_key(storage) for tensor in owned for storage in storages(tensor)}
        self._collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        self._hooks.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Count no new tensors; ``current`` still falls as graphs are freed."""
        self._hooks.__exit__(kind, error, trace)
        if self._collecting:
            gc.enable()

    def _hold(self, tensor: Tensor) -> list[StorageKey]:
        keys = []
        for storage in storages(tensor):
            key = _key(storage)
            if key in self._left_out or storage.nbytes() == 0:
                continue
            keys.append(key)
            entry = self._users.setdefault(key, [0, storage.nbytes()])
            self.current += 0 if entry[0] else entry[1]
            entry[0] += 1
        self.peak = max(self.peak, self.current)
        return keys

    def _let_go(self, keys: list[StorageKey]) -> None:
        for key in keys:
            entry = self._users[key]
            entry[0] -= 1
            if not entry[0]:
                self.current -= entry[1]
                del self._users[key]


class TransientPeak(TorchDispatchMode):
    """Context that follows every storage created in it, on any device: bytes alive now (``current``) and at most (``peak``).

    Operations of the backward pass and of the optimiser are seen too; storages made before are not counted. The state that
    an optimiser makes in its very first step is counted as created; measure a later step to leave it out. Every operation
    passes through Python: for one step, not for timing. What ``torch.compile`` has made cannot be looked into and runs uncompiled, so that
    it shows at most what it takes.
    """

    def __init__(self) -> None:
        """Make a meter; use it for one ``with``."""
        super().__init__()
        self.current = 0
        self.peak = 0
        self._uncompiled: AbstractContextManager[Any] = nullcontext()
        self._alive: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def __enter__(self) -> TransientPeak:
        """Begin to follow."""
        if "torch._dynamo" in sys.modules:  # otherwise nothing is compiled, and importing it takes a second
            self._uncompiled = torch.compiler.set_stance("force_eager")
            self._uncompiled.__enter__()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Follow no new storages."""
        super().__exit__(kind, error, trace)
        self._uncompiled.__exit__(kind, error, trace)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run an operation and follow the storages that it made."""
        held = self._storages((args, kwargs))  # kept until the end, so that no id is given out twice
        given = {id(storage) for storage in held}
        result = func(*args, **(kwargs or {}))
        fresh = func is torch.ops.aten.lift_fresh.default  # how torch.tensor(...) hands over data it has just made
        for storage in self._storages(result):
            self._follow(storage, known=id(storage) in given and not fresh)
        self.peak = max(self.peak, self.current)
        return result

    @staticmethod
    def _storages(tree: Any) -> list[torch.UntypedStorage]:
        return [storage for leaf in tree_iter(tree) if isinstance(leaf, Tensor) for storage in storages(leaf)]

    def _follow(self, storage: torch.UntypedStorage, known: bool) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive:  # seen before; ``out=`` and ``resize_`` may have changed its size
            ref, before = self._alive[key]
        elif known:
            return
        else:
            ref, before = weakref.ref(storage, lambda _: self._forget(key)), 0
        self._alive[key] = (ref, size)
        self.current += size - before

    def _forget(self, key: int) -> None:
        self.current -= self._alive.pop(key)[1]
