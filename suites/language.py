"""Predicting the next token: what tasks of text share.

A text is cut into windows that do not overlap; at every step of a window the network answers with logits of the next token, knowing
nothing before the window. So the first answers of a window are guesses, and the figures are those of short contexts::

    class TinyShakespeare(LanguageTask):
        source = Source(...)
        parts = {"train": (0, 0, 81), ...}   # file, from percent, to percent

The vocabulary is that of the training part and of a size that is an option, so that shapes are known without the files.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from harness import plugin
from harness.plugin import DataError
from harness.task import Data, Head, Split, Task
from suites.longer import longer
from suites.sources import FileTask, cached_arrays
from suites.tokens import Level, Text, Vocabulary, read
from suites.windows import interleaved, windows

Parts = dict[Split, tuple[int, int, int]]
ONE_FILE: Parts = {"train": (0, 0, 81), "validation": (0, 81, 90), "test": (0, 90, 100)}
ONE_FILE_RULE = "in order: the first 81 % train, the next 9 % validation, the last 10 % test"


class Surprise:
    """Cross-entropy per token; the item is the window, right if its mean is below that of answering by the frequencies in training."""

    def __init__(self, main: str, rarity: Tensor) -> None:
        """Start empty; ``main`` is "perplexity" or "bits_per_character", ``rarity [K]`` the cross-entropy of each token by frequency."""
        self.main, self.rarity = main, rarity
        self.total, self.count, self.right = 0.0, 0, 0
        self._correct: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add logits ``[B, T, K]`` for tokens ``[B, T]``; logits that are not numbers are infinitely wrong."""
        targets = targets.long()
        loss = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape).double()
        loss = torch.nan_to_num(loss, nan=math.inf, posinf=math.inf)
        self.total += loss.sum().item()
        self.count += targets.numel()
        self.right += int(((outputs.argmax(-1) == targets) & outputs.isfinite().all(-1)).sum())
        self._correct.append(loss.mean(1) < self.rarity[targets].mean(1))

    def compute(self) -> dict[str, float]:
        """Return the main metric and the share of tokens whose most likely prediction was right."""
        mean = self.total / self.count
        figure = mean / math.log(2) if self.main == "bits_per_character" else (math.exp(mean) if mean < 700 else math.inf)
        return {self.main: figure, "accuracy": self.right / self.count}

    def correct(self) -> list[bool]:
        """Return for each window whether it was predicted better than by frequencies."""
        return torch.cat(self._correct).tolist()


class LanguageTask(FileTask):
    """Tokens ``[B, T]``, one-hot ``[T, B, vocabulary]`` for the network; the targets ``[B, T]`` are the tokens that follow."""

    temporal = True
    readout = "each"
    level: Level = "char"
    parts: ClassVar[Parts] = ONE_FILE

    class Options(plugin.Options):
        """Length of windows and size of the vocabulary."""

        length: int = Field(128, description="steps of a window", ge=2)
        vocabulary: int = Field(66, description="tokens that are told apart, with one for all others", ge=2)

    options: Options

    @property
    def metric(self) -> str:  # type: ignore[override]
        """Return bits per character, or perplexity per word."""
        return "bits_per_character" if self.level == "char" else "perplexity"

    @property
    def steps(self) -> int:
        """Return the length of windows."""
        return self.options.length

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the size of the vocabulary."""
        return (self.options.vocabulary,)

    @property
    def head(self) -> Head:
        """Return logits of the vocabulary at every step."""
        return Head("per_step", classes=self.options.vocabulary)

    def text(self, split: Split) -> Text:
        """Return the tokens of a split; raise DataError if there are too few for a window and its last answer."""
        file, start, stop = self.parts[split]
        found = self.source.require()
        name = list(found.files)[file]
        key = f"{self.source.checksum()} {name}"

        def make() -> dict[str, np.ndarray]:
            whole = read(found.path(name), self.level)
            return {"ids": whole.ids, "words": np.frombuffer("\n".join(whole.types).encode(), np.uint8)}

        if self.level == "word":  # slow to count; no word has a line end in it
            stored = cached_arrays("words", key, make)
            whole = Text(stored["ids"], tuple(stored["words"].tobytes().decode().split("\n")))
        else:
            whole = read(found.path(name), "char")
        part = whole.part(start, stop)
        if len(part) <= self.steps:
            raise DataError(
                f"{name}: the {split} part has {len(part)} tokens, too few for a window of {self.steps} and the token after it; "
                f"use a longer text or a smaller option length"
            )
        return part

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The most frequent tokens of the training part."""
        return Vocabulary.of(self.text("train"), self.options.vocabulary)

    @cached_property
    def rarity(self) -> Tensor:
        """Cross-entropy ``[K]`` of each token if answers are the frequencies of the training part, one added to each count; in nats."""
        counts = np.bincount(self.vocabulary.number(self.text("train")), minlength=self.options.vocabulary) + 1.0
        return -torch.from_numpy(counts / counts.sum()).log()

    def load(self, split: Split) -> Data:
        """Return the windows of a split, interleaved; what remains of the text after the last of them is not used."""
        text = self.text(split)
        if missing := self.vocabulary.left_out(text):
            share = f"{missing} of {len(text)} tokens of the {split} part"
            self.warnings.append(f"{share} are not among the {self.options.vocabulary} of the vocabulary and count as <unk>")
        kind = torch.int16 if self.options.vocabulary <= 1 << 15 else torch.int32
        ids = torch.from_numpy(self.vocabulary.number(text)).to(kind)
        inputs, targets = windows(ids[:-1], self.steps, self.steps), windows(ids[1:], self.steps, self.steps)
        order = interleaved(len(inputs))
        return Data(inputs[order], targets[order])

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return tokens ``[B, T]`` one-hot ``[B, T, vocabulary]``."""
        return F.one_hot(inputs.long(), self.options.vocabulary).float()

    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of logits ``[B, T, K]`` and tokens ``[B, T]``, in nats."""
        return F.cross_entropy(output.flatten(0, 1), targets.flatten().long(), label_smoothing=label_smoothing)

    def scorer(self) -> Surprise:
        """Return an accumulator of the cross-entropy."""
        return Surprise(self.metric, self.rarity)

    def extrapolations(self) -> dict[str, Task]:
        """Return the text in windows of 2 to 15 times the length, as far as the test part has one."""
        longest = len(self.text("test")) - 1
        return {name: task for name, task in longer(self, self.steps, samples=64).items() if task.steps <= longest}
