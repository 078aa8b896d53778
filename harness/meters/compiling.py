"""How long ``torch.compile`` compiled, whatever was compiled and wherever: it happens at first calls, forward or backward.

::

    with CompileMeter() as compiling:
        step()
    compiling.seconds  # 0.0 if nothing was compiled

Kernels that are compiled otherwise (by a C compiler, by Triton when it is called directly) are not seen.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any


class CompileMeter:
    """Context that adds up the wall time of compilations that end within it, in ``seconds``. Meters may be nested."""

    def __init__(self) -> None:
        """Make a meter; use it for one ``with``."""
        self.seconds = 0.0
        self._begin: float | None = None

    def __enter__(self) -> CompileMeter:
        """Begin to listen."""
        from torch._dynamo.callback import callback_handler  # takes a second to import; an optimiser does so too

        callback_handler.register_start_callback(self._start)
        callback_handler.register_end_callback(self._end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening."""
        from torch._dynamo.callback import callback_handler

        callback_handler.remove_start_callback(self._start)
        callback_handler.remove_end_callback(self._end)

    def _start(self, *_: Any) -> None:
        self._begin = time.perf_counter()

    def _end(self, *_: Any) -> None:
        if self._begin is not None:
            self.seconds += time.perf_counter() - self._begin
            self._begin = None
