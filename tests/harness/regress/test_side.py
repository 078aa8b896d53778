"""Both sides lie in folders while they are needed, and nothing is left of them afterwards."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from harness.plugin import UsageError
from harness.regress.side import checkout, dependencies
from tests.harness.regress.conftest import git


@pytest.fixture(autouse=True)
def inside(small, monkeypatch):
    monkeypatch.chdir(small)


def test_a_commit_is_given_as_it_was_and_the_working_tree_as_it_is(small):
    (small / "harness" / "__init__.py").write_text("changed = 1\n")
    (small / "harness" / "new.py").write_text("new = 1\n")
    (small / "ignored").mkdir()
    (small / "ignored" / "data").write_text("")
    (small / "methods" / "gone.py").write_text("")
    git(small, "add", "methods/gone.py")
    (small / "methods" / "gone.py").unlink()
    with checkout("trunk", ".") as (base, head):
        assert (base.root / "harness" / "__init__.py").read_text() == "" and not (base.root / "harness" / "new.py").exists()
        assert (head.root / "harness" / "__init__.py").read_text() == "changed = 1\n" and (head.root / "harness" / "new.py").exists()
        assert not (head.root / "ignored").exists() and not (head.root / "methods" / "gone.py").exists()
        assert head.dirty and not base.dirty
        assert len(str(base.root)) == len(str(head.root))


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_however_it_ends(small, ending, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    try:
        with checkout("HEAD", "trunk"):
            assert len(git(small, "worktree", "list").splitlines()) == 3
            if ending:
                raise ending
    except (KeyboardInterrupt, RuntimeError):
        pass
    assert len(git(small, "worktree", "list").splitlines()) == 1
    assert not list((tmp_path / "temporary").iterdir())
    assert git(small, "status", "--porcelain") == ""


def test_an_unknown_name_is_refused_with_the_nearest_branch():
    with pytest.raises(UsageError, match="trunk"), checkout("trunc", "."):
        pass


def test_a_name_that_looks_like_an_option_is_a_name():
    with pytest.raises(UsageError, match="neither a commit"), checkout("--all", "."):
        pass


def test_a_commit_that_is_no_spikebench_is_refused(small):
    git(small, "rm", "-rq", "methods")
    git(small, "commit", "-q", "-m", "second")
    with pytest.raises(UsageError, match="no package 'methods'"), checkout("HEAD~1", "HEAD"):
        pass
    assert len(git(small, "worktree", "list").splitlines()) == 1


def test_outside_a_checkout_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="in no git checkout"), checkout("HEAD", "."):
        pass


def test_without_git_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs git"), checkout("HEAD", "."):
        pass


def test_what_each_side_asks_to_be_installed_is_read(small):
    (small / "pyproject.toml").write_text("[project]\nname='x'\ndependencies=['torch', 'scipy']\n")
    with checkout("HEAD", ".") as (base, head):
        assert dependencies(base) == ["torch"] and dependencies(head) == ["scipy", "torch"]


def test_hooks_of_the_repository_do_not_run(small, tmp_path):
    hook = Path(git(small, "rev-parse", "--git-path", "hooks/post-checkout"))
    (small / hook).parent.mkdir(exist_ok=True)
    (small / hook).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (small / hook).chmod(0o755)
    with checkout("HEAD", "trunk"):
        pass
    assert not (tmp_path / "ran").exists()
