"""What a record says about machine and code, and that it names neither a person nor a place."""

import getpass
import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from harness import environment


@pytest.fixture
def described():
    return environment.describe(torch.device("cpu"), threads=3)


def test_the_environment_says_what_is_needed_to_compare(described):
    assert described.versions["python"] == platform.python_version()
    assert described.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (described.device_kind, described.device, described.cuda, described.threads) == ("cpu", described.cpu, None, 3)
    assert described.cpu and described.cores >= 1 and described.system.startswith(platform.system())


def test_the_environment_names_no_host_no_user_and_no_path(described):
    text = json.dumps(described.model_dump())
    host = platform.node()
    assert len(host) < 4 or host not in text
    assert getpass.getuser() not in described.versions.values()
    assert str(Path.home()) not in text and str(Path(__file__).parents[2]) not in text


def test_the_commit_is_that_of_the_checkout(described):
    root = Path(environment.__file__).parent
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        assert (described.git_commit, described.git_dirty) == (None, None)
    else:
        assert described.git_commit == done.stdout.strip()
        assert isinstance(described.git_dirty, bool)


def test_without_git_there_is_no_commit(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    environment.git_state.cache_clear()
    monkeypatch.setattr(subprocess, "run", missing)
    try:
        assert environment.git_state() == (None, None)
    finally:
        environment.git_state.cache_clear()


def test_code_installed_inside_another_checkout_claims_no_commit(monkeypatch):
    """In site-packages of a virtual environment within somebody's repository, git knows a commit, but not of this code."""
    environment.git_state.cache_clear()
    monkeypatch.setattr(environment, "_git", lambda *arguments: None if arguments[0] == "ls-files" else "commit of something else")
    try:
        assert environment.git_state() == (None, None)
    finally:
        environment.git_state.cache_clear()


def test_deterministic_algorithms_are_reported(described):
    assert described.deterministic == torch.are_deterministic_algorithms_enabled()


class TestGpuProcesses:
    def answer(self, monkeypatch, tmp_path, text):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return environment.gpu_processes()

    def test_are_counted(self, monkeypatch, tmp_path):
        assert self.answer(monkeypatch, tmp_path, "echo 12; echo 345") == 2

    def test_are_none_where_there_is_none(self, monkeypatch, tmp_path):
        assert self.answer(monkeypatch, tmp_path, "true") == 0

    def test_are_unknown_without_the_tool_or_when_it_fails(self, monkeypatch, tmp_path):
        assert self.answer(monkeypatch, tmp_path, "exit 9") is None
        monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
        assert environment.gpu_processes() is None
