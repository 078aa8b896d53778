"""What chosen modules get and give in a forward pass.

::

    with Watch(blocks) as seen:
        net(x)
    seen.outputs[0]  # of the module that ran first
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

from torch import Tensor, nn


class Watch:
    """Context that keeps the first input and the output of each call of ``modules``, with their graph, in the order of the calls."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        """Choose the modules."""
        self._modules = list(modules)
        self._handles: list[Any] = []
        self.modules: list[nn.Module] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def __enter__(self) -> Watch:
        """Begin to look."""
        self._handles = [module.register_forward_hook(self._keep) for module in self._modules]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop looking; what was seen stays."""
        while self._handles:
            self._handles.pop().remove()

    def _keep(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.modules.append(module)
        self.inputs.append(args[0])
        self.outputs.append(output)
