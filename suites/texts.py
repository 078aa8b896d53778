"""Texts: Tiny Shakespeare by characters, WikiText by words, and any text file of the user's.

WikiText's tokens beyond the vocabulary count as ``<unk>``, which makes the text easier: perplexities of different ``vocabulary`` are not
to be compared, and published ones are those of the whole vocabulary (33,278 of WikiText-2, 267,735 of WikiText-103)::

    spikebench run -t "sequences/text[path=texts/mine.txt,level=word,vocabulary=2000]" -m stbp,ann
"""

from __future__ import annotations

from pydantic import Field

from harness.task import Backbone, Budget, TaskCard, Training
from suites.language import ONE_FILE_RULE, LanguageTask
from suites.sources import Source, digest
from suites.tokens import Level

FOLDER = "sequences/text"
CHARACTERS = {
    "smoke": Budget(
        Training(epochs=4, batch_size=32, lr=4e-3, clip_norm=1.0),
        Backbone("sequence", (128, 128, 128)),
        train_samples=768,
        validation_samples=128,
        test_samples=256,
        time_limit=300,
        target=3.5,
    ),
    "laptop": Budget(
        Training(epochs=5, batch_size=32, lr=2e-3, clip_norm=1.0),
        Backbone("sequence", (256, 256, 256)),
        validation_samples=256,
        time_limit=1800,
        target=2.8,
    ),
    "paper": Budget(
        Training(epochs=50, batch_size=32, lr=1e-3, clip_norm=1.0), Backbone("sequence", (512, 512, 512, 512)), time_limit=86_400
    ),
}
WORDS = {
    "smoke": Budget(
        Training(epochs=3, batch_size=16, lr=8e-3, clip_norm=1.0),
        Backbone("sequence", (64, 64)),
        train_samples=1024,
        validation_samples=128,
        test_samples=256,
        time_limit=300,
        target=38.0,
    ),
    "laptop": Budget(
        Training(epochs=5, batch_size=16, lr=2e-3, clip_norm=1.0),
        Backbone("sequence", (256, 256)),
        validation_samples=256,
        time_limit=1800,
        target=32.0,
    ),
    "paper": Budget(
        Training(epochs=40, batch_size=32, lr=1e-3, clip_norm=1.0), Backbone("sequence", (512, 512, 512, 512)), time_limit=86_400
    ),
}
WIKIPEDIA = "CC BY-SA (text of Wikipedia)"
MERITY = "Pointer sentinel mixture models (Merity, Xiong, Bradbury, Socher, ICLR 2017)"
WHOLE_FILES = {"train": (0, 0, 100), "validation": (1, 0, 100), "test": (2, 0, 100)}


class WordTask(LanguageTask):
    """Words, in windows of 64."""

    level = "word"

    class Options(LanguageTask.Options):
        """Length of windows and size of the vocabulary."""

        length: int = Field(64, description="steps of a window", ge=2)
        vocabulary: int = Field(1000, description="words that are told apart, with one for all others", ge=2)

    options: Options


class TinyShakespeare(LanguageTask):
    """1,115,394 characters, 65 different ones."""

    card = TaskCard(
        name="sequences/tinyshakespeare",
        title="Tiny Shakespeare, next character",
        data="1,115,394 characters of plays; windows that do not overlap",
        licence="public domain; the file's repository is MIT",
        split=ONE_FILE_RULE,
        source="karpathy/char-rnn, tinyshakespeare",
    )
    source = Source(
        ({f"{FOLDER}/tinyshakespeare.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},),
        advice="it is input.txt of data/tinyshakespeare in the repository karpathy/char-rnn",
    )
    budgets = CHARACTERS


class WikiText2Valid(WordTask):
    """WikiText-2 without its training file: training on the validation file."""

    card = TaskCard(
        name="sequences/wikitext2-valid",
        title="WikiText-2, next word, trained on its validation file",
        data="217,646 tokens of wiki.valid to train on, 245,569 tokens of wiki.test; not comparable with WikiText-2",
        licence=WIKIPEDIA,
        split="wiki.valid in order: first 90 % train, last 10 % validation; wiki.test is test",
        source=MERITY,
    )
    source = Source(
        (
            {
                f"{FOLDER}/wikitext2_valid.txt": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                f"{FOLDER}/wikitext2_test.txt": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            },
        ),
        advice="they are valid.txt and test.txt of word_language_model/data/wikitext-2 in the repository pytorch/examples",
    )
    parts = {"train": (0, 0, 90), "validation": (0, 90, 100), "test": (1, 0, 100)}
    budgets = WORDS


class WikiText2(WordTask):
    """WikiText-2 in full, for those who have the three files."""

    card = TaskCard(
        name="sequences/wikitext2",
        title="WikiText-2, next word",
        data="about 2.1 million tokens of Wikipedia to train on, 218 thousand for validation, 246 thousand for test",
        licence=WIKIPEDIA,
        split="the publisher's files",
        source=MERITY,
    )
    source = Source(
        (
            dict.fromkeys((f"{FOLDER}/wikitext-2/wiki.{part}.tokens" for part in ("train", "valid", "test")), ""),
            dict.fromkeys((f"{FOLDER}/wikitext-2/{part}.txt" for part in ("train", "valid", "test")), ""),
        ),
        advice="they are the files of WikiText-2, word level, as its authors publish them",
    )
    parts = WHOLE_FILES
    budgets = WORDS


class WikiText103(WordTask):
    """WikiText-103, for those who have the three files."""

    card = TaskCard(
        name="sequences/wikitext103",
        title="WikiText-103, next word",
        data="about 103 million tokens of Wikipedia to train on; validation and test are those of WikiText-2",
        licence=WIKIPEDIA,
        split="the publisher's files",
        source=MERITY,
    )
    source = Source(
        (dict.fromkeys((f"{FOLDER}/wikitext-103/wiki.{part}.tokens" for part in ("train", "valid", "test")), ""),),
        advice="they are the files of WikiText-103, word level, as its authors publish them",
    )
    parts = WHOLE_FILES
    budgets = WORDS


class TextFile(LanguageTask):
    """A text file of the user's, below a folder of ``SPIKEBENCH_DATA`` or with its full path."""

    card = TaskCard(
        name="sequences/text",
        title="Next token of any text file",
        data="a file in UTF-8 that the option path names",
        licence="that of the file",
        split=ONE_FILE_RULE,
        source="the user",
    )
    budgets = CHARACTERS

    class Options(LanguageTask.Options):
        """The file, and what its tokens are."""

        path: str = Field("", description="text file, below a folder of SPIKEBENCH_DATA or with its full path")
        level: Level = Field("char", description="tokens: characters, or words between white space")
        length: int = Field(128, description="steps of a window", ge=2)
        vocabulary: int = Field(128, description="tokens that are told apart, with one for all others", ge=2)

    options: Options

    @property
    def level(self) -> Level:  # type: ignore[override]
        """Return what tokens are."""
        return self.options.level

    @property
    def source(self) -> Source:  # type: ignore[override]
        """Return the file."""
        return Source(({self.options.path: ""},), advice="the option path names it")

    def unavailable(self) -> str | None:
        """Return that no file was named, or that it is missing, or None."""
        return super().unavailable() if self.options.path else "say which file: sequences/text[path=FILE]"

    def checksum(self) -> str:
        """Return a hash of the file's content, wherever it lies."""
        return digest(self.source.require().path(self.options.path))[:16]
