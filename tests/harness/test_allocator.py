"""What the allocator does is seen from processes of their own: page faults and resident memory, counted by the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from harness import allocator
from harness.allocator import SETTINGS, VARIABLE, keep_memory, use_huge_pages

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
huge = pytest.mark.skipif(not HUGE.exists() or "[madvise]" not in HUGE.read_text(), reason="no huge pages on request")

FAULTS = """
import resource, torch
from harness.allocator import *
{}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""

RESIDENT = """
import torch
from harness.allocator import *
from harness.meters.resident import resident_bytes
keep_memory()
before = resident_bytes()
torch.ones(1 << 26)
kept = resident_bytes() - before
return_memory()
print(kept, resident_bytes() - before)
"""


def output(program: str, **environment: str) -> list[int]:
    variables = {key: value for key, value in os.environ.items() if key not in {VARIABLE, "GLIBC_TUNABLES", *SETTINGS}} | environment
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=120, check=True)
    return [int(number) for number in done.stdout.split()]


@huge
def test_large_tensors_take_few_page_faults_on_huge_pages_unless_the_user_says_otherwise():
    program = FAULTS.format("use_huge_pages()")
    assert output(program)[0] * 5 < output(program, **{VARIABLE: "0"})[0]


@glibc
@huge
def test_a_process_that_keeps_memory_on_huge_pages_takes_it_once():
    kept, returned = (output(FAULTS.format(f"use_huge_pages(); {call}()"))[0] for call in ("keep_memory", "return_memory"))
    assert kept * 10 < returned


@glibc
@pytest.mark.parametrize("setting", [{"MALLOC_TOP_PAD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}])
def test_a_process_that_the_user_has_set_is_left_alone(setting):
    assert output(FAULTS.format("assert not keep_memory() and not return_memory()"), **{VARIABLE: "0"}, **setting)[0] > 10_000


@glibc
def test_what_is_free_is_kept_until_memory_is_to_be_returned():
    kept, left = output(RESIDENT)
    assert kept > 0.95 * 2**28
    assert left < 0.05 * 2**28


def test_memory_is_not_kept_where_there_is_too_little_of_it(monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:   9000 kB\nMemAvailable:   4000 kB\n")
    asked = []
    monkeypatch.setattr(allocator, "MEMINFO", meminfo)
    monkeypatch.setattr(allocator, "_set", lambda values: asked.append(values) is None)
    assert not keep_memory(1025 * 1000)
    assert not asked
    assert keep_memory(1023 * 1000)
    assert asked == [allocator.KEEP]


def test_nothing_is_done_without_glibc(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    assert not keep_memory()
    assert not allocator.return_memory()


def test_a_decision_of_the_user_about_huge_pages_is_kept(monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")
    use_huge_pages()
    assert os.environ[VARIABLE] == "0"
