"""Huge pages: what they do is seen from a process of its own, as PyTorch decides once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.allocator import VARIABLE, use_huge_pages

PROBE = """
import resource
import torch
from harness.allocator import use_huge_pages
use_huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def page_faults(**environment: str) -> int:
    variables = {key: value for key, value in os.environ.items() if key != VARIABLE} | environment
    done = subprocess.run([sys.executable, "-c", PROBE], env=variables, capture_output=True, text=True, timeout=120, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="the system does not give huge pages on request")
def test_large_tensors_take_few_page_faults_unless_the_user_says_otherwise():
    assert page_faults() * 5 < page_faults(**{VARIABLE: "0"})


def test_a_decision_of_the_user_is_kept(monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")
    use_huge_pages()
    assert os.environ[VARIABLE] == "0"
