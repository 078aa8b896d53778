"""Language and forecasting on the files of SPIKEBENCH_DATA, and the generated sequences.

First, what is read from the files is what others say of them. Then trainings through the command line, each compared with the best answer
that knows nothing of the input: always 1, the most frequent class, the frequencies of tokens, the last row that was seen.
"""

import numpy as np
import pytest
import torch

from harness.metrics import TASK_METRICS
from harness.record import read_record
from harness.registry import Registries
from harness.task import SPLITS
from suites.language import LanguageTask

TASKS = [
    "sequences/adding",
    "sequences/copy-memory",
    "sequences/listops",
    "sequences/tinyshakespeare",
    "sequences/wikitext2-valid",
    "sequences/etth1",
    "sequences/etth2",
]
MARGIN = {"sequences/listops": 1.15, "sequences/adding": 0.8, "sequences/copy-memory": 4}  # times the ignorant answer's; default 0.95


def ignorant(task):
    """The main metric on test of answering without looking."""
    data, scorer = task.split("test"), task.scorer()
    if isinstance(task, LanguageTask):
        answers = -task.rarity.float().expand(*data.targets.shape, -1)
    elif task.head.kind == "regress":
        answers = torch.full((len(data), task.head.classes), 1.0 if task.name == "sequences/adding" else 0.0)
    elif task.head.kind == "per_step":
        answers = torch.zeros(*data.targets.shape, task.head.classes)
        answers[..., 1] = 1
    else:
        answers = torch.bincount(task.split("train").targets, minlength=task.head.classes).float().expand(len(data), -1)
    scorer.update(answers, data.targets)
    return scorer.compute()[task.metric]


def here(name, budget="smoke"):
    task = Registries().task(name, budget)
    if reason := task.unavailable():
        pytest.skip(reason)
    return task


def test_tiny_shakespeare_has_1115394_characters_65_of_them_different():
    task = here("sequences/tinyshakespeare", "paper")
    parts = [task.text(split) for split in SPLITS]
    assert sum(map(len, parts)) == 1_115_394
    assert len(parts[0].types) == 65
    whole = task.source.require().path("sequences/text/tinyshakespeare.txt").read_text(encoding="utf-8")
    assert "".join(part.types[number] for part in parts for number in part.ids) == whole


def test_wikitext_2_has_as_many_tokens_as_published():
    task = here("sequences/wikitext2-valid", "paper")
    assert len(task.text("train")) + len(task.text("validation")) == 217_646
    assert len(task.text("test")) == 245_569


@pytest.mark.parametrize("name", ["etth1", "etth2"])
def test_transformer_temperatures_are_as_numpy_reads_them(name):
    task = here(f"sequences/{name}", "paper")
    expected = np.loadtxt(task.file(), delimiter=",", skiprows=1, usecols=range(1, 8))
    np.testing.assert_array_equal(task.table.values, expected)
    train = expected[:8640]
    scaled = (expected - train.mean(0)) / train.std(0)
    assert [len(task.split(split)) for split in SPLITS] == [8640 - 96 - 24 + 1, 2880 - 24 + 1, 2880 - 24 + 1]
    np.testing.assert_allclose(task.split("test").inputs[0], scaled[11_520 - 96 : 11_520], atol=1e-5)
    np.testing.assert_allclose(task.split("test").targets[0], scaled[11_519 : 11_520 + 24], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_smoke_run_learns_more_than_an_answer_that_does_not_look(command, tmp_path, name):
    task = here(name)
    outcome = command("run", "-t", name, "-m", "stbp,ann", "--threads", "1", "--results", tmp_path)
    assert outcome.status == 0, outcome
    records = [read_record(path) for path in tmp_path.glob("*.json")]
    assert {record.label for record in records} == {"stbp", "ann"}
    bar = ignorant(task) * MARGIN.get(name, 0.95)
    for record in records:
        assert record.status == "ok", record.failure
        found = record.accuracy.test
        assert found > bar if TASK_METRICS[task.metric][2] == "higher" else found < bar, (record.label, found, bar)
