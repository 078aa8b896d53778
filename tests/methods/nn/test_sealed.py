"""Training data under seal."""

import pytest
import torch

from harness.loader import Loader
from harness.task import Data
from methods.nn.sealed import SealedError, counted, sealed, with_training_data
from suites.static_vision import Digits


@pytest.mark.parametrize(
    "read",
    [
        lambda task: next(task.batches("train", 4)),
        lambda task: task.gather("train", torch.tensor([0])),
        lambda task: len(task.split("train")),
        lambda task: task.split("train")[0],
        lambda task: task.split("train").inputs,
        lambda task: task.split("train").targets,
        lambda task: next(iter(Loader(task, 4, seed=0))),
    ],
)
def test_every_way_to_training_data_is_closed(read):
    task = Digits()
    read(task)
    with pytest.raises(SealedError, match="sealed"):
        read(sealed(task))
    read(task)


def test_validation_and_test_data_stay_readable():
    task = Digits()
    for split in ("validation", "test"):
        assert torch.equal(next(sealed(task).batches(split, 4)).inputs, next(task.batches(split, 4)).inputs)


def test_other_data_stand_in_for_the_training_data():
    task = Digits()
    bytes_ = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    other = with_training_data(task, Data(bytes_, torch.arange(6)))
    (batch,) = other.batches("train")
    torch.testing.assert_close(batch.inputs, task.prepare(bytes_.float() / 255))
    assert batch.targets.tolist() == list(range(6))
    assert len(task.split("train")) == 1257


def test_training_samples_that_are_read_are_counted_and_come_as_they_are():
    task = Digits()
    wanted = task.gather("train", torch.tensor([3, 5]))
    with counted(task) as read:
        found = task.gather("train", torch.tensor([3, 5]))
        task.gather("train", torch.tensor([5]))
        next(task.batches("validation", 4))
        assert len(task.split("train")) == 1257
    assert read == {3, 5} and torch.equal(found.inputs, wanted.inputs) and torch.equal(found.targets, wanted.targets)
    task.gather("train", torch.tensor([7]))
    assert read == {3, 5}
