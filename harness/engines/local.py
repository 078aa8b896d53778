"""Runs on this machine, each in a process of its own, with a hard time limit and a captured log.

A run's process is told what to do on its standard input, which stays open: when this process dies, even by ``kill -9``, the
pipe closes and the run ends itself. It reports on its standard output in lines that begin with a marker; everything else goes to the
log. A process that ends without a record (signal, time-out, crash of the interpreter) gets one here, and the matrix goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.failure import from_exit
from harness.identity import Plan
from harness.plugin import UsageError
from harness.record import Record, read_record
from harness.runner import MARK
from harness.store import Store

LOG_LIMIT = 4_000_000  # characters of output that a log keeps
LINGER = 3.0  # seconds that what a run has started may hold its output open after the run has ended
Listen = Callable[[Plan, dict[str, Any]], None]


class LocalEngine:
    """Executes plans in processes on this machine, ``jobs`` at a time."""

    def __init__(
        self,
        store: Store,
        plugin_files: Sequence[Path] = (),
        jobs: int = 1,
        time_limit: float | None = None,
        keep_networks: bool = False,
    ) -> None:
        """Prepare; ``time_limit`` in seconds replaces that of the budgets, ``keep_networks`` saves what was trained."""
        self.store, self.plugin_files, self.jobs, self.time_limit = store, list(plugin_files), jobs, time_limit
        self.keep_networks = keep_networks
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def run(self, plans: Sequence[Plan], listen: Listen) -> list[Record]:
        """Run all plans and return their records, in the order they end.

        ``listen`` gets ``(plan, event)`` from other threads: events "start", "phase", "epoch", "stage", and "end" with the record.
        KeyboardInterrupt ends the runs in flight without a record, and is raised again.
        """
        records = []
        pool = ThreadPoolExecutor(self.jobs)
        waiting: set[Future[Record | None]] = {pool.submit(self._run_one, plan, listen) for plan in plans}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                records += [record for future in done if (record := future.result()) is not None]
        finally:  # an interrupt, or an error of ours: nothing may be left running
            self._stopping = True
            pool.shutdown(wait=False, cancel_futures=True)
            with self._lock:
                for process in self._running:
                    _kill(process)
            pool.shutdown(wait=True)
        return records

    def _run_one(self, plan: Plan, listen: Listen) -> Record | None:
        if self._stopping:
            return None
        assert plan.key and plan.settings
        started = datetime.now(UTC)
        listen(plan, {"event": "start"})
        limit = self.time_limit or plan.settings.time_limit
        job = {
            "spec": plan.spec.model_dump(mode="json"),
            "key": plan.key,
            "settings": plan.settings.model_dump(mode="json"),
            "started": started.timestamp(),
            "plugin_files": [str(path.resolve()) for path in self.plugin_files],
            "results": str(self.store.folder.resolve()),
            "keep_networks": self.keep_networks,
        }
        process = self._spawn(plan.spec.threads)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        ended = threading.Event()

        def sweep() -> None:
            process.wait()
            if not ended.wait(LINGER):
                _kill(process)

        timer = threading.Timer(limit, expire)
        timer.start()
        threading.Thread(target=sweep, daemon=True).start()
        try:
            self._send(process, job)
            log, written = self._listen(process, plan, listen)
            code = process.wait()
        finally:
            timer.cancel()
            ended.set()
            with self._lock:
                self._running.discard(process)
            _kill(process)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
        if self._stopping and not written:
            return None
        record = None
        if written:
            with suppress(UsageError):  # unreadable after all: a failure of this run, not of the matrix
                record = read_record(self.store.path(plan.key))
        if record is None:
            status, failure = from_exit(code, limit if expired.is_set() else None, log)
            record = Record(
                key=plan.key,
                status=status,
                label=plan.spec.label,
                spec=plan.spec,
                settings=plan.settings,
                started=started.isoformat(timespec="seconds"),
                duration=(datetime.now(UTC) - started).total_seconds(),
                failure=failure,
            )
            self.store.write(record)
        listen(plan, {"event": "end", "record": record})
        return record

    def _spawn(self, threads: int) -> subprocess.Popen[str]:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what CUDA needs for deterministic matrix products
        }
        with self._lock:
            process = subprocess.Popen(
                [sys.executable, "-m", "harness.runner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends the runs
            )
            self._running.add(process)
            if self._stopping:  # an interrupt came in between
                _kill(process)
        return process

    @staticmethod
    def _send(process: subprocess.Popen[str], job: dict[str, Any]) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once; the exit status tells
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()

    def _listen(self, process: subprocess.Popen[str], plan: Plan, listen: Listen) -> tuple[str, bool]:
        """Pass on events and write the log until the output ends; return the log's tail and whether a record was written."""
        assert process.stdout is not None and plan.key is not None
        tail, length, written = "", 0, False
        with self.store.log_path(plan.key).open("w", encoding="utf-8") as log:
            for line in process.stdout:
                text, mark, said = line.partition(MARK)  # a method may have printed without ending its line
                if text and length < LOG_LIMIT:
                    log.write(text)
                    log.flush()
                    length += len(text)
                    tail = (tail + text)[-8000:]
                if mark:
                    event = json.loads(said)
                    written = written or event["event"] == "record"
                    listen(plan, event)
        return tail, written


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and what it has started, also if it has ended itself: its group lives as long as one of them does."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
