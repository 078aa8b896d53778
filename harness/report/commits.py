"""The order of commits: where the checkout's history knows a commit, and when it was made.

    commits = Commits(git_log())
    sorted(points, key=lambda point: commits.place(point.commit, point.day))

Nothing of a record reaches git's command line: the log is read once, and what records say is looked up in it.
"""

from __future__ import annotations

import bisect
import itertools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Commit:
    """A commit of the checkout. ``place`` is its number in the history of HEAD, oldest first; None for one of another branch."""

    name: str
    when: str  # committer's date, ISO 8601, UTC
    subject: str
    place: int | None


def _git(*arguments: str) -> list[str]:
    folder = str(Path(__file__).resolve().parent)
    command = ["git", "-C", folder, "-c", "log.showSignature=false", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, check=True, env={**os.environ, "TZ": "UTC"}
        )
    except (OSError, subprocess.SubprocessError):  # no git, no checkout
        return []
    return done.stdout.splitlines()


def git_log() -> list[Commit]:
    """Return all commits of the checkout that this code lies in, in topological order, oldest first; none outside of one."""
    if not _git("ls-files", "--error-unmatch", Path(__file__).name):
        return []
    places = {name: place for place, name in enumerate(_git("rev-list", "--topo-order", "--reverse", "HEAD"))}
    form = "--format=%H%x09%cd%x09%s"
    lines = _git("log", "--all", "HEAD", "--topo-order", "--reverse", "--date=format-local:%Y-%m-%dT%H:%M:%S+00:00", form)
    return [Commit(name, when, subject, places.get(name)) for name, when, subject in (line.split("\t", 2) for line in lines)]


class Commits:
    """Commits by name, and an order in which those that are unknown stand among the others by their date."""

    def __init__(self, log: list[Commit]) -> None:
        """Index a log."""
        self._known = {commit.name: commit for commit in log}
        ours = sorted((commit for commit in log if commit.place is not None), key=lambda commit: commit.place or 0)
        self._dates = list(itertools.accumulate((commit.when for commit in ours), max))  # dates may go backwards, places do not

    @property
    def known(self) -> int:
        """Return how many commits there are."""
        return len(self._known)

    def find(self, name: str | None) -> Commit | None:
        """Return the commit of that name, or None."""
        return self._known.get(name) if name else None

    def place(self, name: str | None, when: str) -> tuple[float, str]:
        """Return what to sort by: the place in the history of HEAD; for others, that of the last of these before ``when``."""
        commit = self.find(name)
        if commit is not None and commit.place is not None:
            return float(commit.place), when
        date = commit.when if commit is not None else when
        return bisect.bisect_right(self._dates, date) - 0.5, date
