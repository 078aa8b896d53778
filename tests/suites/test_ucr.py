import gzip
import os

import numpy as np
import pytest
import torch

from harness.plugin import DataError
from suites.sources import Source
from suites.ucr import Acsf1, BasicMotions, ItalyPowerDemand, JapaneseVowels, OsuLeaf, Plaid

ALL = [Acsf1, BasicMotions, ItalyPowerDemand, JapaneseVowels, OsuLeaf, Plaid]
SIZES = {
    "ACSF1": (80, 20, 100),
    "PLAID": (436, 101, 537),
    "OSULeaf": (163, 37, 242),
    "JapaneseVowels": (216, 54, 370),
    "BasicMotions": (32, 8, 40),
    "ItalyPowerDemand": (55, 12, 1029),
}


def series(count, label, start, channels=6, steps=100):
    """Lines of series whose values say which they are: ``start``, ``start + 1``, ..."""
    return [":".join([",".join([str(start + n)] * steps)] * channels + [label]) for n in range(count)]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """BasicMotions' files, filled by hand."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    folder = tmp_path / "sequences" / "ucr" / "BasicMotions"
    folder.mkdir(parents=True)

    def write(train, test, classes="Standing Running Walking Badminton", dimensions=6):
        header = f"@timeStamps false\n@dimensions {dimensions}\n@classLabel true {classes}\n@data\n"
        for part, lines in (("TRAIN", train), ("TEST", test)):
            (folder / f"BasicMotions_{part}.ts").write_text(header + "\n".join(lines))
        return BasicMotions()

    return write


TRAIN = [*series(10, "Standing", 0), *series(5, "Running", 10), *series(3, "Walking", 15), *series(2, "Badminton", 18)]
TEST = [*series(1, "Walking", 100), *series(2, "Running", 200)]


def raw(task, split):
    """The number that every series of a split was made of."""
    training = np.repeat([n for n in range(20) if n not in (4, 9, 14)], 100).astype(float)
    return [round(value) for value in (task.split(split).inputs[:, -1, 0] * training.std() + training.mean()).tolist()]


def test_every_fifth_series_of_a_class_is_validation_and_the_rest_training(toy):
    task = toy(TRAIN, TEST)
    assert sorted(raw(task, "validation")) == [4, 9, 14]
    assert sorted(raw(task, "train") + raw(task, "validation")) == list(range(20))


def test_the_test_part_is_whole_and_normalised_by_training_data(toy):
    task = toy(TRAIN, TEST)
    assert sorted(raw(task, "test")) == [100, 200, 201]
    values = task.split("train").inputs
    torch.testing.assert_close(values.mean((0, 1)), torch.zeros(6), atol=1e-5, rtol=0)


def test_classes_take_turns_and_are_numbered_in_the_headers_order(toy):
    assert toy(TRAIN, TEST).split("train").targets.tolist()[:8] == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": "Standing Running Walking"}, "class 'Badminton' is unknown"),
        ({"classes": "Standing Running Walking Badminton Swimming"}, "5 classes and 6 channels; BasicMotions has 4 and 6"),
        ({"train": series(4, "Standing", 0, channels=2), "dimensions": 2}, "4 classes and 2 channels"),
        ({"train": series(4, "Standing", 0, steps=101)}, "101 steps; the longest of BasicMotions has 100"),
        ({"train": []}, "holds no series"),
    ],
)
def test_files_of_another_set_are_refused(toy, changes, message):
    task = toy(**{"train": TRAIN, "test": TEST, **changes})
    with pytest.raises(DataError, match=message):
        task.split("train")


def test_parts_of_different_sets_are_refused(toy, tmp_path):
    task = toy(TRAIN, TEST)
    path = tmp_path / "sequences" / "ucr" / "BasicMotions" / "BasicMotions_TEST.ts"
    path.write_text(path.read_text().replace("Standing Running", "Running Standing"))
    with pytest.raises(DataError, match="different classes"):
        task.split("test")


def test_a_packed_file_of_other_content_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    (tmp_path / "sequences" / "ucr").mkdir(parents=True)
    for name in Acsf1.source.variants[0]:
        (tmp_path / name).write_bytes(gzip.compress(b"x"))
    assert "ACSF1_TRAIN.ts.gz is damaged or another version" in Acsf1().unavailable()
    with pytest.raises(DataError, match="ACSF1_TRAIN"):
        Acsf1().split("train")


def test_missing_files_are_named_with_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    assert isinstance(Plaid.source, Source)
    assert "PLAID_TRAIN.ts.gz" in Plaid().unavailable()
    assert "PLAID.zip of timeseriesclassification.com" in Plaid().unavailable()


def needs(task):
    if not os.environ.get("SPIKEBENCH_DATA"):
        pytest.skip("SPIKEBENCH_DATA is not set")
    if reason := task.unavailable():
        pytest.skip(reason)


@pytest.mark.parametrize("kind", ALL)
def test_the_real_files_have_the_sizes_of_the_archive(kind):
    needs(task := kind())
    assert tuple(len(task.split(split)) for split in ("train", "validation", "test")) == SIZES[kind.problem]
    data = task.split("train")
    assert data.inputs.shape[1:] == (task.steps, *task.input_shape)
    assert data.targets.unique().tolist() == list(range(task.head.classes))
    assert data.inputs.isfinite().all()


@pytest.mark.parametrize("kind", [Acsf1, Plaid])
def test_length_0_gives_all_steps(kind):
    needs(task := kind(options={"length": 0}))
    assert task.steps == kind.longest
    assert task.split("test").inputs.shape[1] == kind.longest


def test_short_series_end_at_the_last_step():
    needs(task := JapaneseVowels())
    inputs = task.split("test").inputs
    present = (inputs != 0).any(2)
    assert present[:, -7:].all()  # the shortest has seven steps
    assert present.sum(1).unique().tolist() == sorted(set(present.sum(1).tolist()))
    assert not (present[:, :-1] & ~present[:, 1:]).any()  # zeros in front only


def test_series_longer_than_the_length_are_resampled_and_shorter_ones_kept():
    needs(Plaid())
    whole, cut = (Plaid(options={"length": length}).split("test").inputs[..., 0] for length in (0, 500))
    lengths = (whole != 0).int().argmax(1).neg() + whole.shape[1]
    short = lengths <= 490  # a first value of exactly the mean would look like one step less
    torch.testing.assert_close(cut[short], whole[short][:, -500:])
    place = int((lengths == 1000).int().argmax())
    assert lengths[place] == 1000
    assert not torch.equal(cut[place], whole[place, -500:])
