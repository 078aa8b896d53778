"""Trainings through the command line: language and forecasting on the files of SPIKEBENCH_DATA, and the generated sequences.

Each result is compared with the best answer that knows nothing of the input: always 1, the most frequent class, the frequencies of tokens,
the last row that was seen.
"""

import pytest
import torch

from harness.metrics import TASK_METRICS
from harness.record import read_record
from harness.registry import Registries
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


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_smoke_run_learns_more_than_an_answer_that_does_not_look(command, tmp_path, name):
    task = Registries().task(name)
    if reason := task.unavailable():
        pytest.skip(reason)
    outcome = command("run", "-t", name, "-m", "stbp,ann", "--threads", "1", "--results", tmp_path)
    assert outcome.status == 0, outcome
    records = [read_record(path) for path in tmp_path.glob("*.json")]
    assert {record.label for record in records} == {"stbp", "ann"}
    bar = ignorant(task) * MARGIN.get(name, 0.95)
    for record in records:
        assert record.status == "ok", record.failure
        found = record.accuracy.test
        assert found > bar if TASK_METRICS[task.metric][2] == "higher" else found < bar, (record.label, found, bar)
