r"""Texts of records as they may be shown: a record is untrusted, and a terminal obeys control characters.

printable("\x1b[31mred\nline")   # "?[31mred?line"
"""

from __future__ import annotations


def printable(text: object) -> str:
    """Return text with every character that would not be printed (control characters, line breaks, marks of direction) as ``?``."""
    return "".join(each if each.isprintable() else "?" for each in str(text))
