"""Sequences on real data: every task whose files are here trains through the command line and beats the largest class clearly."""

import os

import pytest
import torch

from harness.record import read_record
from harness.registry import Registries

TASKS = [
    "sequences/acsf1",
    "sequences/basic-motions",
    "sequences/fsdd",
    "sequences/fsdd[features=spikes]",
    "sequences/italy-power-demand",
    "sequences/japanese-vowels",
    "sequences/mnist-rows",
    "sequences/osuleaf",
    "sequences/plaid",
    "sequences/psmnist",
    "sequences/scifar10",
    "sequences/scifar10-jpeg",
    "sequences/scifar10-jpeg-pixels",
    "sequences/scifar10-pixels",
    "sequences/smnist",
    "sequences/speech-commands",
]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stbp", "ann"])
@pytest.mark.parametrize("name", TASKS)
def test_a_network_learns_more_than_the_largest_class(command, tmp_path, name, method):
    if not os.environ.get("SPIKEBENCH_DATA"):
        pytest.skip("SPIKEBENCH_DATA is not set")
    task = Registries().task(name)
    if reason := task.unavailable():
        pytest.skip(reason)
    outcome = command("run", "-t", name, "-m", method, "--jobs", "1", "--threads", "1", "--results", tmp_path)
    assert outcome.status == 0, outcome
    (path,) = tmp_path.glob("*.json")
    record = read_record(path)
    assert record.status == "ok", record.failure
    data = task.split("test")
    samples = len(data)
    counts = torch.tensor([int(data[place][1]) for place in range(samples)]).bincount()
    assert record.accuracy.test_samples == samples
    chance = counts.max().item() / samples
    assert record.accuracy.test > chance + 3 * (chance * (1 - chance) / samples) ** 0.5
