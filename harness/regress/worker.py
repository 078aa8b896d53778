"""A process that measures one state of the code: it is told what to do line by line, and answers line by line.

::

    with Worker(side, log) as worker:
        worker.ask({"do": "core", "core": "lif"})["spikes"]

The program is ``suites/regression/regress_worker.py`` of the spikebench that runs, for both sides, so that a change of it is no difference
between them. Its packages must lie in the side's folder; a worker that found others would compare a state with itself.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.plugin import UsageError
from harness.regress.side import Side

PROGRAM = "suites.regression.regress_worker"
PATIENCE = 600.0  # seconds for one order, on a machine that is busy with other things too
Answer = dict[str, Any]


class WorkerError(Exception):
    """The measured code could not do what was asked; ``dead`` if the process is gone too."""

    def __init__(self, message: str, dead: bool = False) -> None:
        """Say why."""
        super().__init__(message)
        self.dead = dead


def program() -> Path:
    """Return the file of the measuring program; raise UsageError where it is not installed."""
    spec = find_spec(PROGRAM)
    if spec is None or spec.origin is None:
        raise UsageError(f"the measuring program {PROGRAM} is not here")
    return Path(spec.origin)


class Worker:
    """The process of one side."""

    def __init__(self, side: Side, core: int | None = None) -> None:
        """Start it, on one ``core`` if given. Raises UsageError if the code cannot be imported, or is not the side's own."""
        self.side = side
        self._log, self._logged = tempfile.mkstemp(prefix="spikebench-regress-", suffix=".log")
        self._lines: queue.Queue[str | None] = queue.Queue()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(side.root), os.environ.get("PYTHONPATH", "")])),
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            # Keep freed memory, on huge pages (harness/allocator.py): else it is luck of the layout whether the system takes it back after
            # every call and zeroes it again, for up to a third of the time of a neuron core.
            "THP_MEM_ALLOC_ENABLE": "1",
            "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
            "MALLOC_TOP_PAD_": str(64 << 20),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(program())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends its workers
        )
        threading.Thread(target=self._read, daemon=True).start()
        try:
            places = self.ask({"do": "where"})
            for package, place in places.items():
                if not Path(place).is_relative_to(side.root.resolve()):
                    raise UsageError(f"{side.title} cannot be measured: its {package} was imported from elsewhere")
            if core is not None:
                self.ask({"do": "pin", "core": core})
        except WorkerError as error:
            self.close()
            raise UsageError(f"{side.title} cannot be measured: {error}") from None
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):  # closed
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def ask(self, order: Answer, patience: float = PATIENCE) -> Answer:
        """Return the answer to an order. Raises WorkerError if the code failed, the process died, or nothing came in time."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died; the missing answer tells
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            raise WorkerError(f"no answer within {patience:.0f} s", dead=True) from None
        if line is None:
            raise WorkerError(self._death(), dead=True)
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _death(self) -> str:
        code = self._process.wait()
        said = Path(self._logged).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if code < 0:
            return f"the process was ended by {signal.Signals(-code).name}"
        return said[-1] if said else f"the process ended with exit status {code}"

    def close(self) -> None:
        """End the process and what it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        with suppress(OSError):  # closed before
            os.close(self._log)
        Path(self._logged).unlink(missing_ok=True)

    def __enter__(self) -> Worker:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process."""
        self.close()
