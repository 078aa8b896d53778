"""Names of files for names that anybody may have chosen: tasks and methods of records."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

LONGEST = 60


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Return name -> file name without ending: ``static/digits`` is ``static-digits``. No two are alike, and none leaves its folder.

    A name that another one would share its file with, or of which little is left, has a part of its hash behind it.
    """
    found: dict[str, str] = {}
    for name in sorted(set(names)):
        plain = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:LONGEST]
        if not plain or plain in found.values():
            plain = f"{plain}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:10]}".strip("-")
        found[name] = plain
    return found
