import math

import pytest
import torch

from harness.plugin import DataError, UsageError
from harness.task import SPLITS
from methods.ann import Ann
from methods.stbp import Stbp
from suites.language import Surprise
from suites.texts import TextFile, TinyShakespeare

WORDS = "to be or not to be that is the question whether tis nobler in the mind to suffer"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.txt").write_text("\n".join(WORDS for _ in range(40)), encoding="utf-8")
    return tmp_path


def text(**options):
    return TextFile(options={"path": "mine.txt", "length": 8, "vocabulary": 32} | options)


def test_targets_are_the_tokens_that_follow(folder):
    data = text().split("test")
    assert torch.equal(data.inputs[:, 1:], data.targets[:, :-1])


@pytest.mark.parametrize("level", ["char", "word"])
def test_splits_are_consecutive_parts_of_the_text_and_windows_do_not_overlap(folder, level):
    whole = (folder / "mine.txt").read_text()
    tokens = list(whole) if level == "char" else " <eos> ".join([*whole.split("\n"), ""]).split()
    borders = {"train": (0, 81), "validation": (81, 90), "test": (90, 100)}
    for split in SPLITS:
        task = text(level=level)
        task.budget = type(task.budget)(task.budget.training, task.budget.backbone)
        start, stop = (len(tokens) * share // 100 for share in borders[split])
        part = tokens[start:stop]
        expected = sorted(tuple(part[place : place + 8]) for place in range(0, len(part) - 8, 8))
        known = task.vocabulary.tokens
        assert sorted(tuple(known[token] for token in row) for row in task.split(split).inputs.tolist()) == expected


def test_tokens_beyond_the_vocabulary_are_counted_in_a_warning(folder):
    task = text(level="word", vocabulary=3)
    task.split("test")
    (warning,) = task.warnings
    counts = [int(word) for word in warning.split() if word.isdigit()]
    part = task.text("test")
    known = set(task.vocabulary.tokens)
    assert counts[:2] == [sum(part.types[number] not in known for number in part.ids), len(part)]


def test_a_text_in_which_all_is_known_gives_no_warning(folder):
    task = text()
    for split in SPLITS:
        task.split(split)
    assert task.warnings == []


def test_a_text_shorter_than_a_window_is_refused_by_name(folder):
    with pytest.raises(DataError, match=r"mine\.txt: the test part has \d+ tokens, too few for a window of 5000"):
        text(length=5000).split("test")


def test_a_part_of_just_a_window_and_the_token_after_it_is_one_sample(folder):
    (folder / "short.txt").write_text("abcdefghi" * 10)  # the last tenth has nine characters
    task = TextFile(options={"path": "short.txt", "length": 8})
    assert len(task.split("test")) == 1
    with pytest.raises(DataError, match=r"short\.txt"):
        TextFile(options={"path": "short.txt", "length": 9}).split("test")


def test_an_empty_file_is_refused_by_name(folder):
    (folder / "empty.txt").touch()
    for level in ("char", "word"):
        with pytest.raises(DataError, match=r"empty\.txt: the train part has 0 tokens"):
            TextFile(options={"path": "empty.txt", "level": level}).split("train")


def test_a_missing_file_is_named_with_what_to_do(folder):
    assert TextFile().unavailable() == "say which file: sequences/text[path=FILE]"
    assert "put gone.txt below SPIKEBENCH_DATA" in text(path="gone.txt").unavailable()
    assert text().unavailable() is None


def test_a_file_can_be_given_by_its_full_path_and_is_known_by_its_content(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "other.txt"
    path.write_bytes((folder / "mine.txt").read_bytes())
    other = text(path=str(path))
    assert torch.equal(other.split("train").inputs, text().split("train").inputs)
    assert other.checksum() == text().checksum()


def test_longer_windows_are_of_the_same_text_as_far_as_it_has_one(folder):
    longest = len(text().text("test")) - 1
    found = text(length=40).extrapolations()
    assert [task.steps for task in found.values()] == [40 * times for times in (2, 4, 8, 15) if 40 * times <= longest]
    assert len(found) < 4 and all(len(task.split("test")) for task in found.values())


def test_an_unknown_level_is_refused():
    with pytest.raises(UsageError, match="level"):
        TextFile(options={"level": "syllable"})


def test_a_changed_text_has_another_checksum(folder):
    before = text().checksum()
    (folder / "mine.txt").write_text(WORDS)
    assert text().checksum() != before


def test_a_damaged_shakespeare_is_refused(folder):
    (folder / "sequences" / "text").mkdir(parents=True)
    (folder / "sequences" / "text" / "tinyshakespeare.txt").write_text("First Citizen")
    assert "tinyshakespeare.txt is damaged or another version" in TinyShakespeare().unavailable()
    with pytest.raises(DataError, match="tinyshakespeare"):
        TinyShakespeare().split("train")


@pytest.mark.parametrize(("main", "figure"), [("perplexity", math.exp), ("bits_per_character", lambda nats: nats / math.log(2))])
def test_the_metric_is_that_of_the_mean_cross_entropy(main, figure):
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(10, 6, 7, generator=generator), torch.randint(7, (10, 6), generator=generator)
    scorer = Surprise(main, torch.full((7,), math.log(7)))
    for part in range(0, 10, 3):
        scorer.update(logits[part : part + 3], targets[part : part + 3].short())
    chosen = logits.double().softmax(-1).gather(-1, targets.unsqueeze(-1)).log()
    found = scorer.compute()
    assert next(iter(found)) == main
    assert found[main] == pytest.approx(figure(-chosen.mean().item()), rel=1e-6)
    assert found["accuracy"] == pytest.approx((logits.argmax(-1) == targets).double().mean().item())
    assert scorer.correct() == (-chosen.mean((1, 2)) < math.log(7)).tolist()


def test_perplexity_is_torchmetrics():
    from torchmetrics.text import Perplexity

    logits, targets = torch.randn(4, 6, 7), torch.randint(7, (4, 6))
    scorer = Surprise("perplexity", torch.zeros(7))
    scorer.update(logits, targets)
    peer = Perplexity()
    peer.update(logits, targets)
    assert scorer.compute()["perplexity"] == pytest.approx(peer.compute().item(), rel=1e-5)


def test_logits_that_are_no_numbers_are_infinitely_wrong():
    scorer = Surprise("perplexity", torch.ones(7))
    scorer.update(torch.full((1, 2, 7), math.nan), torch.zeros(1, 2, dtype=torch.int16))
    assert scorer.compute() == {"perplexity": math.inf, "accuracy": 0.0}
    assert scorer.correct() == [False]


def test_answering_by_frequencies_is_what_a_window_is_compared_with(folder):
    task = text()
    targets = task.split("test").targets
    scorer = task.scorer()
    scorer.update(-task.rarity.expand(*targets.shape, -1).float(), targets)
    counts = torch.bincount(task.split("train").inputs.flatten().int(), minlength=32)
    assert scorer.compute()["bits_per_character"] == pytest.approx((task.rarity[targets.long()].mean() / math.log(2)).item(), rel=1e-6)
    assert torch.equal(counts.argsort(stable=True)[-1:], task.rarity.argsort()[:1])
    assert task.rarity.neg().exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("method", [Ann, Stbp])
def test_answers_do_not_change_with_what_comes_later(folder, method):
    task = text(length=40)
    torch.manual_seed(0)
    net = method(task).build()
    batch = task.gather("train", torch.arange(8))
    with torch.no_grad():
        for _ in range(60):  # until running statistics are those of the text
            net(task.encode(batch.inputs, 40))
    net.eval()
    changed = batch.inputs.clone()
    changed[:, 25:] = changed[:, 25:].roll(1, -1)
    with torch.no_grad():
        before, after = (net(task.encode(inputs, 40)) for inputs in (batch.inputs, changed))
    torch.testing.assert_close(before[:25], after[:25])
    assert not torch.allclose(before[25:], after[25:])
