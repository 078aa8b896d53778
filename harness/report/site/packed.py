"""JSON inside a script file: what a page that was opened from the file system may load, compressed.

A page may not read other files there, but it may run the scripts of its own folder. ``pack`` writes one that hands its data to
``spikebench.unpack`` (static/packed.js), which knows what gzip is because browsers do.
"""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pydantic_core


def pack(name: str, text: bytes) -> str:
    """Return the script that hands JSON ``text`` over as ``name``, the same for the same text."""
    packed = base64.b64encode(gzip.compress(text, 9, mtime=0)).decode()
    return f'spikebench.receive({json.dumps(name)},"{packed}");\n'


def as_json(value: Any) -> bytes:
    """Return compact JSON; numbers that are not finite become texts ("NaN"), as in records."""
    return pydantic_core.to_json(value, inf_nan_mode="strings")


def as_block(value: Any) -> str:
    """Return JSON to stand inside a ``<script type="application/json">``: nothing in it can end the element or begin markup."""
    text = as_json(value).decode()
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
