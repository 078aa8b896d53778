"""Every method sees the same batches in the same order."""

import pytest
import torch

from harness.loader import Loader
from harness.loop import train


def order(loader, epochs=1):
    return [batch.index.tolist() for _ in range(epochs) for batch in loader]


@pytest.fixture
def task(toy_task):
    return toy_task()


def test_an_epoch_has_every_sample_once_but_for_a_last_batch_of_one(task):
    batches = order(Loader(task, 5, seed=0))
    assert [len(batch) for batch in batches] == [5, 5]  # 11 samples: the eleventh is left out
    assert len({i for batch in batches for i in batch}) == 10


@pytest.mark.parametrize(
    ("size", "batches"), [(11, [11]), (10, [10]), (6, [6, 5]), (4, [4, 4, 3]), (2, [2] * 5), (100, [11]), (1, [1] * 11)]
)
def test_batches_are_full_but_for_the_last(task, size, batches):
    loader = Loader(task, size, seed=0)
    assert [len(batch) for batch in order(loader)] == batches
    assert len(loader) == len(batches)


def test_a_single_sample_is_a_batch_if_there_is_no_other(task):
    loader = Loader(task, 5, seed=0, keep=lambda targets: torch.arange(len(targets)) == 7)
    assert order(loader) == [[7]]


def test_the_order_depends_on_the_seed_and_changes_from_epoch_to_epoch(task):
    assert order(Loader(task, 5, seed=3), 2) == order(Loader(task, 5, seed=3), 2)
    first, second = order(Loader(task, 11, seed=3), 2)
    assert first != second
    assert order(Loader(task, 5, seed=3)) != order(Loader(task, 5, seed=4))


def test_the_order_does_not_depend_on_random_numbers_drawn_elsewhere(task):
    torch.manual_seed(0)
    before = order(Loader(task, 5, seed=3))
    torch.manual_seed(1)
    loader, interrupted = Loader(task, 5, seed=3), []
    for batch in loader:
        torch.rand(3)
        interrupted.append(batch.index.tolist())
    assert interrupted == before


def test_augmentation_changes_inputs_and_not_the_order(task):
    plain, noisy = Loader(task, 5, seed=3), Loader(task, 5, seed=3, augment=True)
    torch.manual_seed(8)  # what else draws random numbers does not matter
    again = Loader(task, 5, seed=3, augment=True)
    for a, b, c in zip(plain, noisy, again, strict=True):
        assert torch.equal(a.index, b.index) and torch.equal(a.targets, b.targets)
        assert not torch.equal(a.inputs, b.inputs)
        assert torch.equal(b.inputs, c.inputs)


def test_only_the_samples_that_are_kept_are_seen(task):
    targets = task.split("train").targets
    loader = Loader(task, 2, seed=0, keep=lambda targets: targets == 1)
    seen = [i for batch in order(loader, 5) for i in batch]
    assert set(seen) == set((targets == 1).nonzero().flatten().tolist())


def test_nothing_left_to_train_on_is_told(task):
    with pytest.raises(ValueError, match="no sample of the training split of toy/signs is left to train on"):
        Loader(task, 2, seed=0, keep=lambda targets: targets > 5)


def test_two_methods_are_trained_on_the_same_batches(toy_task, toy_method):
    """One draws random numbers and has another network; the batches are the same."""

    class Recording(toy_method):
        def step(self, net, batch, update):
            self.seen.append((batch.index.tolist(), batch.inputs.clone()))
            return super().step(net, batch, update)

    class Other(Recording):
        def step(self, net, batch, update):
            torch.rand(7)
            return super().step(net, batch, update)

        def build(self):
            return torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.Dropout(0.1), torch.nn.Linear(9, 2))

    seen = []
    for kind in (Recording, Other):
        torch.manual_seed(5)
        method = kind(toy_task(), training={"augment": True})
        method.seen = []
        train(method, method.build(), seed=2)
        seen.append(method.seen)
    assert [index for index, _ in seen[0]] == [index for index, _ in seen[1]]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(*seen, strict=True))


class Files:
    """A data set that is read sample by sample."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, place):
        return self.data[place]


def test_a_data_set_that_is_read_by_workers_gives_the_same_batches_as_one_in_memory(task, toy_task):
    other = toy_task()
    other._splits["train"] = Files(task.split("train"))
    for wanted, found in zip(Loader(task, 5, seed=3, augment=True), Loader(other, 5, seed=3, augment=True), strict=True):
        assert torch.equal(wanted.index, found.index) and torch.equal(wanted.targets, found.targets)
        torch.testing.assert_close(found.inputs, wanted.inputs, rtol=0, atol=0)


def test_choosing_samples_of_a_data_set_without_targets_is_refused(toy_task):
    task = toy_task()
    task._splits["train"] = Files(task.split("train"))
    with pytest.raises(TypeError, match="Files has no targets"):
        Loader(task, 5, seed=0, keep=lambda targets: targets > 0)
