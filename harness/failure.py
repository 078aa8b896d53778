"""What is kept of a run that failed: its status and a traceback without paths of the machine."""

from __future__ import annotations

import re
import signal
import traceback
from pathlib import Path

import torch

from harness.loop import DivergedError
from harness.record import Failure

TAIL = 4000  # characters of a traceback or log that a record keeps


def without_paths(text: str) -> str:
    """Return ``text`` with every absolute path cut: of a file to its last three parts at most, of a folder to its name."""
    try:
        home = str(Path.home())
    except RuntimeError:  # a user without a home, as in some containers
        home = "/"
    text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text) if home != "/" else text
    return re.sub(r"(?<![\w.~:/])(?:~(?:/[\w.+@=-]+)+|(?:/[\w.+@=-]+){2,})", _cut, text)


def _cut(path: re.Match[str]) -> str:
    parts = path[0].split("/")[1:]
    private = 0 if path[0].startswith("~") else 2 if parts[0] in ("home", "Users") else 1
    last = 3 if "." in parts[-1].strip(".") else 1
    return "/".join(parts[min(private, len(parts) - 1) :][-last:])


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, without paths."""
    message = str(error).strip()
    return without_paths(message.splitlines()[0]) if message else "no message"


def describe(error: BaseException) -> tuple[str, Failure]:
    """Return the status of a record and the failure, for an exception."""
    message = str(error)
    if isinstance(error, DivergedError):
        status = "diverged"
    elif isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in message or "not enough memory" in message:
        status = "out_of_memory"
    else:
        status = "error"
    trace = "".join(traceback.format_exception(error))
    return status, Failure(message=f"{type(error).__name__}: {first_line(error)}", traceback=without_paths(trace)[-TAIL:])


def from_exit(code: int, timed_out: float | None, log: str) -> tuple[str, Failure]:
    """Return status and failure for a process that ended without a record; ``timed_out`` is the limit that ran out, if one did."""
    tail = without_paths(log)[-TAIL:]
    if timed_out is not None:
        return "timeout", Failure(message=f"did not end within {timed_out:g} s", traceback=tail, signal="SIGKILL")
    if code < 0:
        known = {int(each): each.name for each in signal.Signals}
        name = known.get(-code, f"signal {-code}")  # real-time signals have no name
        hint = " (often the system running out of memory)" if name == "SIGKILL" else ""
        return "killed", Failure(message=f"ended by {name}{hint}", traceback=tail, signal=name)
    return "error", Failure(message=f"exited with status {code} and no record", traceback=tail, exit_code=code)
