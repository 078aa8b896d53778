"""What the command refuses, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.regress.conftest import ROOT, git


def test_equal_folders_of_records_end_with_0(command, tmp_path, make_record):
    from harness.store import Store

    for name in ("a", "b"):
        store = Store(tmp_path / name)
        store.prepare()
        trace = [{"phase": "train", "epoch": 0, "loss": 1.0, "seconds": 1.0, "validation": 0.5, "batches": 1}]
        store.write(make_record(trace=trace))
    ended = command("regress", str(tmp_path / "a"), str(tmp_path / "b"))
    assert ended.status == 0 and "No regression" in ended.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("HEAD", "records"), "two of one kind"),
        (("HEAD", ".", "--rounds", "3"), "at least 6"),
        (("nothing", "."), "neither a commit"),
        (("HEAD", ".", "-m", "stpb"), "stbp"),
        (("HEAD", ".", "-t", "static/digit"), "static/digits"),
        (("HEAD", ".", "--changed", "never"), "fail or report"),
        (("HEAD", ".", "--json", "missing/x.json"), "cannot be written"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_one_line(command, small, monkeypatch, arguments, told):
    monkeypatch.chdir(small)
    (small / "records").mkdir()
    ended = command("regress", *arguments)
    assert ended.status == 2 and told in ended.err.splitlines()[-1] and ended.out == ""


def test_why_nothing_was_measured_is_in_the_files_too(command, small, monkeypatch):
    monkeypatch.chdir(small)
    assert command("regress", "nothing", ".", "--json", "x.json", "--summary", "x.md").status == 2
    assert json.loads(Path("x.json").read_text())["verdict"] == "not measured"
    assert "not measured" in Path("x.md").read_text()


def test_a_commit_that_lacks_what_is_needed_is_not_measured_with_what_is_installed(command, small, monkeypatch):
    monkeypatch.chdir(small)
    ended = command("regress", "HEAD", ".", "-t", "static/digits", "-m", "stbp", "--rounds", "0")
    assert ended.status == 2 and "Not measured" in ended.out.splitlines()[-1]
    assert "No module named 'methods.nn'" in ended.out and "Traceback" not in ended.err


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_ends_with_130_and_leaves_no_worktree(clone):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "regress", "HEAD", "."],
        cwd=clone,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A shell's background jobs ignore interrupts, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in process.stderr:
            if "cores done" in line:  # both sides are at work
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert len(git(clone, "worktree", "list").splitlines()) == 1
