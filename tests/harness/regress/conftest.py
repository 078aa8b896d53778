"""A repository with this spikebench in it, to plant bugs in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def git(at: Path, *arguments: str) -> str:
    """Run git as somebody."""
    who = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *arguments], cwd=at, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a repository that has the shape of spikebench and nothing inside."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    top = tmp_path / "small"
    for package in ("harness", "methods", "suites"):
        (top / package).mkdir(parents=True)
        (top / package / "__init__.py").write_text("")
    (top / "pyproject.toml").write_text("[project]\nname='x'\ndependencies=['torch']\n")
    (top / ".gitignore").write_text("ignored/\n")
    git(top, "init", "-q", "-b", "trunk")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "first")
    return top


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with the packages of this checkout; take a copy (``clone``) to change something."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    top = tmp_path_factory.mktemp("whole")
    for package in ("harness", "methods", "suites"):
        shutil.copytree(ROOT / package, top / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", top)
    git(top, "init", "-q", "-b", "trunk")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "first")
    return top


@pytest.fixture
def clone(whole: Path, tmp_path: Path) -> Path:
    """Return a clone of it of one's own."""
    git(tmp_path, "clone", "-q", "--shared", str(whole), "clone")
    return tmp_path / "clone"
