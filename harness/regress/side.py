"""The two states of the code that are compared, each in a folder of its own for as long as it is needed.

::

    with checkout("main", ".") as (base, head):
        base.root, head.root    # folders with harness/, methods/ and suites/

A commit becomes a detached worktree, ``.`` a copy of the working tree as it is (tracked and new files, without those that git ignores).
Both folders lie side by side under names of the same length, and are gone afterwards, whatever happens.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.plugin import UsageError, did_you_mean

TREE = "."  # the working tree as it is
PACKAGES = ("harness", "methods", "suites")
LEFT_OUT = "results/"  # records take no part


@dataclass(frozen=True)
class Side:
    """One state of the code."""

    name: str  # "base" or "head"
    given: str  # as the user named it
    commit: str
    dirty: bool  # the working tree, with changes that no commit has
    root: Path

    @property
    def title(self) -> str:
        """Return how tables call it: ``main (0ac12a9)``."""
        return f"{'working tree' if self.given == TREE else self.given} ({self.commit[:7]}{', changed' if self.dirty else ''})"

    def plain(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        return {"given": self.given, "commit": self.commit, "dirty": self.dirty, "title": self.title}


def git(*arguments: str, at: Path | None = None) -> str:
    """Return what a git command prints; raise UsageError with its last line if it fails or there is no git."""
    command = ["git", "-c", "core.hooksPath=/dev/null", *(["-C", str(at)] if at else []), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise UsageError("comparing commits needs git, which is not installed; folders of records can be compared without") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        raise UsageError(f"git {arguments[0]}: {said[-1]}") from None
    return done.stdout


def repository() -> Path:
    """Return the top of the checkout that this is called in; raise UsageError if it is none, or not one of spikebench."""
    try:
        top = Path(git("rev-parse", "--show-toplevel").strip())
    except UsageError as error:
        if "not installed" in str(error):
            raise
        raise UsageError("this folder is in no git checkout; commits are compared from within one, folders of records anywhere") from None
    return top


def commit_of(name: str, top: Path) -> str | None:
    """Return the commit that a name stands for, or None."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{'HEAD' if name == TREE else name}^{{commit}}", at=top).strip()
    except UsageError:
        return None


def _resolve(name: str, top: Path) -> str:
    found = commit_of(name, top)
    if found is not None:
        return found
    branches = git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes", "refs/tags", at=top).split()
    shallow = git("rev-parse", "--is-shallow-repository", at=top).strip() == "true"
    hint = "; this clone is shallow: `git fetch --unshallow` brings older commits" if shallow else did_you_mean(name, branches)
    raise UsageError(f"{name!r} is neither a commit or branch that is here nor a folder of records{hint}")


def _copy_tree(top: Path, target: Path) -> None:
    for name in filter(None, git("ls-files", "-z", "--cached", "--others", "--exclude-standard", at=top).split("\0")):
        source = top / name
        if name.startswith(LEFT_OUT) or not (source.is_file() or source.is_symlink()):  # deleted, or a repository within
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target / name, follow_symlinks=False)


@contextmanager
def checkout(base: str, head: str) -> Iterator[tuple[Side, Side]]:
    """Give both sides as folders. Raises UsageError for a name that is no commit, or one without the packages of spikebench."""
    top = repository()
    commits = [_resolve(name, top) for name in (base, head)]
    folder = Path(tempfile.mkdtemp(prefix="spikebench-regress-")).resolve()
    sides: list[Side] = []
    try:
        for name, given, commit in zip(("base", "head"), (base, head), commits, strict=True):
            root = folder / name
            dirty = False
            if given == TREE:
                _copy_tree(top, root)
                dirty = bool(git("status", "--porcelain", "--", ".", f":!{LEFT_OUT}", at=top).strip())
            else:
                git("worktree", "add", "--quiet", "--detach", str(root), commit, at=top)
            side = Side(name, given, commit, dirty, root)
            for package in PACKAGES:
                if not (root / package / "__init__.py").is_file():
                    raise UsageError(f"{side.title} has no package {package!r}: it is no spikebench, or one from before it had its shape")
            sides.append(side)
        yield sides[0], sides[1]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        git("worktree", "prune", at=top)


def dependencies(side: Side) -> list[str]:
    """Return what a side's ``pyproject.toml`` asks to be installed; nothing if it cannot be read."""
    try:
        project = tomllib.loads((side.root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []
    return sorted(project.get("dependencies", []))
