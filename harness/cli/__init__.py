"""The command line. Thin: each command's work is a function in ``harness/commands/``, imported when it is called."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from harness.cli.options import app
from harness.plugin import UsageError

# isort: off
# These add their commands to the application, and help lists them in this order.
from harness.cli import runs, reports, guards, plugins  # noqa: F401

# isort: on

__all__ = ["app", "main"]


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line: exit status 0, 1 (something was found wrong), 2 (cannot be done as asked) or 130 (interrupted)."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(given or ["--help"], prog_name="spikebench", standalone_mode=False)
    except UsageError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("spikebench: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # only errors of the parser have it; their class depends on typer's version
            raise
        command = getattr(getattr(error, "ctx", None), "command_path", "spikebench")
        _refuse(f"{error.format_message().rstrip('.')} (see {command} --help)")
    sys.exit(status if isinstance(status, int) else 0)


def _refuse(message: str) -> NoReturn:
    """Say in one line why it cannot be done, and exit with status 2."""
    sys.stderr.write(f"spikebench: {' '.join(message.split())}\n")
    sys.exit(2)
