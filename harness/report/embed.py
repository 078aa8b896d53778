"""Pages of documentation that show what a command prints; ``python -m harness.report.embed README.md docs/*.md`` writes it anew.

A page marks where the output of a command goes::

    <!-- spikebench table --results results/reference/depth --format github -->
    ...
    <!-- end -->

Commands only read records (``table``, ``list``, ``claims``); whatever stands between the marks is replaced. A test compares page
and output.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

BLOCK = re.compile(r"(<!-- spikebench (?P<command>[^\n]*?) -->\n)(?P<shown>.*?)(<!-- end -->)", re.DOTALL)
READERS = ("table", "list", "claims")


def blocks(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield the arguments of each command in a page and what the page shows for it; raise ValueError for one that does not just read."""
    for found in BLOCK.finditer(text):
        arguments = shlex.split(found["command"])
        if arguments[0] not in READERS:
            raise ValueError(f"spikebench {found['command']}: a page may show the output of {', '.join(READERS)} only")
        yield arguments, found["shown"].strip()


def refreshed(text: str, run: Callable[[Sequence[str]], str]) -> str:
    """Return a page with the output of its commands in place, as ``run`` gives it."""
    shown = {shlex.join(arguments): run(arguments).strip() for arguments, _ in blocks(text)}
    return BLOCK.sub(lambda found: f"{found[1]}\n{shown[shlex.join(shlex.split(found['command']))]}\n\n{found[4]}", text)


def output(arguments: Sequence[str]) -> str:
    """Return what a command prints."""
    from harness.cli import app

    text = StringIO()
    with redirect_stdout(text):
        app(list(arguments), prog_name="spikebench", standalone_mode=False)
    return text.getvalue()


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(refreshed(path.read_text(encoding="utf-8"), output), encoding="utf-8")
