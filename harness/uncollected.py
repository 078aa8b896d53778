"""Reports make a million objects and no cycles: to look for cycles among them again and again takes a tenth of their time.

@uncollected()
def table(...): ...
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no cycles meanwhile; a block or, as a decorator, a function."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
