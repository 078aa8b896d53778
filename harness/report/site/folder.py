"""A folder that appears whole or not at all, and never takes the place of anything but an earlier one of ours.

``replaced`` gives a place to write to::

with replaced(Path("public")) as temporary:
    (temporary / "index.html").write_text(...)
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.plugin import UsageError

MARKER = ".spikebench-site"
ABOUT = "Written by `spikebench site`, which replaces this whole folder.\n"


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` and put it in its place at the end; an exception leaves ``folder`` as it was.

    Raises UsageError if ``folder`` is a file, holds something else than a site of ours, or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder.name} is a file; name a folder with --output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(f"folder {folder.name} is not empty and holds no earlier site; name another with --output, or empty it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UsageError(f"folder {folder.name} cannot be written: {error.strerror}; name another with --output") from None
    try:
        (temporary / MARKER).write_text(ABOUT, encoding="utf-8")
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # a temporary folder is for its owner alone; a page is for all
        old = temporary.with_name(f"{temporary.name}.old")
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
