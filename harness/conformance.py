"""The contract as a pytest class, for the project's methods and for anybody's plugin.

In an external package::

    from harness.conformance import MethodConformance

    class TestMine(MethodConformance):
        method = "mine"              # with options in brackets if need be
        plugin_files = ("mine.py",)  # not needed for an entry point
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from harness.checks import CHECKS, Subject


class MethodConformance:
    """Derive from this in a test module, set ``method``, and pytest runs every check."""

    method: ClassVar[str] = ""
    plugin_files: ClassVar[Sequence[str | Path]] = ()

    @pytest.fixture(scope="class")
    def subject(self) -> Subject:
        """Return the method to check, shared by the checks."""
        return Subject(self.method, self.plugin_files)

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(self, check: Callable[[Subject], None], subject: Subject) -> None:
        """Run one check."""
        check(subject)
