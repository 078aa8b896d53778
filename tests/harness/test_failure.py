"""What is kept of a failure: its kind, one line, and a traceback that names no folder of the machine."""

import signal
from pathlib import Path

import pytest
import torch

from harness.failure import TAIL, describe, from_exit, without_paths
from harness.loop import DivergedError


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('File "/opt/venv/lib/python3.11/site-packages/torch/nn/modules/conv.py", line 3', 'File "nn/modules/conv.py", line 3'),
        ('File "/srv/x.py", line 1', 'File "x.py", line 1'),
        ("in /home/someone/x.py:3", "in x.py:3"),
        ("'/Users/someone/work/x.py'", "'work/x.py'"),
        ("No such file: '/mnt/someone/data/cifar'", "No such file: 'cifar'"),
        ("see https://pytorch.org/docs/stable/notes.html", "see https://pytorch.org/docs/stable/notes.html"),
        ("1/2 and a/b/c.py", "1/2 and a/b/c.py"),
        ("shape [3/4], ratio 5 / 6", "shape [3/4], ratio 5 / 6"),
        ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap>"),
        ("/a/b.py /c/d.py", "b.py d.py"),
    ],
)
def test_absolute_paths_are_cut(text, left):
    assert without_paths(text) == left


def test_the_home_folder_is_cut(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/remote/people/ann"))
    assert without_paths("File /remote/people/ann/code/deep/in/x.py") == "File deep/in/x.py"
    assert without_paths("File /remote/people/ann/x.py") == "File x.py"
    assert without_paths("no /remote/people/ann/data") == "no data"
    assert without_paths("/remote/people/anna/data/x.py") == "anna/data/x.py"  # another's: ~ would be wrong


def test_a_user_without_a_home_is_no_problem(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert without_paths("/srv/data/x.py") == "data/x.py"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DivergedError("loss is nan"), "diverged"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "out_of_memory"),
        (ValueError("no"), "error"),
        (ArithmeticError("no"), "error"),
    ],
)
def test_the_status_follows_from_the_exception(error, status):
    assert describe(error)[0] == status


def test_the_message_is_one_line_and_the_traceback_has_the_cause():
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("first line\nsecond line of /home/someone/x.py") from error
    except ValueError as error:
        _, found = describe(error)
    assert found.message == "ValueError: first line"
    assert "KeyError: 'inner'" in found.traceback and "second line of x.py" in found.traceback
    assert str(Path(__file__).parents[2]) not in found.traceback
    assert (found.exit_code, found.signal) == (None, None)


def test_an_exception_without_a_message_is_named():
    assert describe(MemoryError())[1].message == "MemoryError: no message"


def test_a_long_traceback_is_cut_to_its_end():
    _, found = describe(ValueError("x" * 10 * TAIL + "end"))
    assert len(found.traceback) == TAIL and found.traceback.endswith("end\n")


def test_how_a_process_ended_without_a_record_is_told(tmp_path):
    status, found = from_exit(-signal.SIGKILL, None, "log of /srv/data/x.py")
    assert (status, found.signal, found.exit_code) == ("killed", "SIGKILL", None)
    assert "out of memory" in found.message and found.traceback == "log of data/x.py"
    status, found = from_exit(-signal.SIGSEGV, None, "")
    assert (status, found.signal, found.message) == ("killed", "SIGSEGV", "ended by SIGSEGV")
    status, found = from_exit(3, None, "")
    assert (status, found.exit_code, found.signal) == ("error", 3, None)
    status, found = from_exit(-signal.SIGKILL, 2.5, "")
    assert (status, found.message) == ("timeout", "did not end within 2.5 s")


def test_a_signal_without_a_name_is_told_by_its_number():
    assert from_exit(-40, None, "")[1].signal == "signal 40"
