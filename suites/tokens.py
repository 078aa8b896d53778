"""From text files to numbers: characters or words, and a vocabulary of the most frequent ones.

Words are what lies between white space; every line ends with the mark ``<eos>``, as in the perplexities that are published for WikiText.
Characters are Unicode's, line ends included as they are::

    text = read(path, "word")
    known = Vocabulary.of(text, size=1000)
    ids = known.number(text)     # 0 is <unk>
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.plugin import DataError

Level = Literal["char", "word"]
UNKNOWN, END = "<unk>", "<eos>"


@dataclass(frozen=True)
class Text:
    """A sequence of tokens: ``types[ids[i]]`` is the i-th."""

    ids: np.ndarray  # int32
    types: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)

    def part(self, start: int, stop: int) -> Text:
        """Return the tokens from ``start`` percent to ``stop`` percent of the text."""
        return Text(self.ids[len(self) * start // 100 : len(self) * stop // 100], self.types)


def read(path: Path, level: Level) -> Text:
    """Return the tokens of a UTF-8 file; raise DataError, naming the file, if it cannot be read or is not UTF-8."""
    try:
        return _characters(path) if level == "char" else _words(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not text in UTF-8: {error.reason} at byte {error.start}; convert it or get it again") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}") from None


def _characters(path: Path) -> Text:
    text = path.read_bytes().decode("utf-8")
    codes, ids = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)
    return Text(ids.astype(np.int32), tuple(chr(code) for code in codes))


def _words(path: Path) -> Text:
    known: dict[str, int] = {}
    ids = array("i")
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            ids.extend([known.setdefault(word, len(known)) for word in (*line.split(), END)])
    return Text(np.frombuffer(ids, np.int32) if len(ids) else np.empty(0, np.int32), tuple(known))


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that have numbers of their own; number 0 is ``<unk>``, all others."""

    tokens: tuple[str, ...]

    @classmethod
    def of(cls, text: Text, size: int) -> Vocabulary:
        """Return ``<unk>`` and the ``size - 1`` most frequent tokens of ``text``, of equally frequent ones those that sort first."""
        counts = np.bincount(text.ids, minlength=len(text.types))
        found = [(-int(count), token) for token, count in zip(text.types, counts, strict=True) if count and token != UNKNOWN]
        return cls((UNKNOWN, *(token for _, token in sorted(found)[: size - 1])))

    def number(self, text: Text) -> np.ndarray:
        """Return the numbers of all tokens, int32."""
        place = {token: number for number, token in enumerate(self.tokens)}
        return np.array([place.get(token, 0) for token in text.types], np.int32)[text.ids]

    def left_out(self, text: Text) -> int:
        """Return how many tokens of ``text`` have no number, those that the text itself calls ``<unk>`` aside."""
        known = {*self.tokens}
        missing = np.array([token not in known for token in text.types], bool)
        return int(missing[text.ids].sum()) if len(text) else 0
