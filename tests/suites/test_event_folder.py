import numpy as np
import pytest
from event_data import aedat_bytes, bin_bytes, stream
from hypothesis import given
from hypothesis import strategies as st

from harness.plugin import DataError, UsageError
from suites.event_folder import EventFolder, _by_hash

SIZE = {"path": "mine", "width": 34, "height": 34}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "events" / "mine"


def fill(folder, count, kinds=("a", "b")):
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            (folder / kind / f"{number}.bin").write_bytes(bin_bytes(stream(20, seed=number)))


def task(**options):
    return EventFolder(options=SIZE | options)


def names(split):
    return task().recordings(split).names


def test_without_a_path_it_says_so():
    assert "events/folder[path=...]" in EventFolder().unavailable()


def test_a_folder_that_is_not_there_is_named(root):
    assert "put events/mine below SPIKEBENCH_DATA" in task().unavailable()


def test_one_class_is_not_enough(root):
    fill(root, 5, kinds=("a",))
    assert "holds 1 folders" in task().unavailable()


def test_the_head_has_a_class_per_folder(root):
    fill(root, 5, kinds=("owl", "crow", "jay"))
    assert (task().head.classes, task().classes) == (3, ["crow", "jay", "owl"])


def test_a_folder_without_parts_is_split_by_hash(root):
    fill(root, 20)
    parts = {split: names(split) for split in ("train", "validation", "test")}
    assert {split: len(found) for split, found in parts.items()} == {"train": 28, "validation": 4, "test": 8}
    assert len(set().union(*parts.values())) == 40
    # The rule as the card states it, for class a.
    import hashlib

    dealt = sorted((f"a/{n}.bin" for n in range(20)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert sorted(name for name in parts["test"] if name[0] == "a") == sorted(dealt[:4])
    assert sorted(name for name in parts["validation"] if name[0] == "a") == sorted(dealt[4:6])


def test_folders_of_parts_are_the_splits(root):
    fill(root / "train", 10)
    fill(root / "test", 3)
    assert len(names("train")) == 18 and len(names("validation")) == 2 and len(names("test")) == 6
    fill(root / "validation", 4)
    assert len(names("train")) == 20 and len(names("validation")) == 8


def test_classes_come_in_turn(root):
    fill(root, 10)
    assert [name[0] for name in names("train")] == ["a", "b"] * 7


def test_a_class_that_training_has_not_is_named(root):
    fill(root / "train", 5)
    fill(root / "test", 5, kinds=("a", "b", "c"))
    with pytest.raises(DataError, match="mine/test has the class c"):
        names("test")


def test_a_class_without_files_is_named(root):
    fill(root, 5)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="mine/empty holds no file"):
        names("train")


def test_a_class_of_too_few_files_is_named(root):
    fill(root, 2)
    with pytest.raises(DataError, match="a has 2 recordings"):
        names("train")


def test_kinds_of_files_can_be_mixed_and_chosen(root):
    fill(root, 5)
    events = stream(9)
    for kind in "ab":
        (root / kind / "x.aedat").write_bytes(aedat_bytes(events))
        np.savez(root / kind / "y.npz", **{field: events[field] for field in "xytp"})
        (root / kind / "notes.txt").write_text("not a recording")
    assert sum(len(names(split)) for split in ("train", "validation", "test")) == 14
    chosen = [task(format="bin").recordings(split) for split in ("train", "validation", "test")]
    assert sum(map(len, chosen)) == 10


def test_an_absolute_path_is_one(root, tmp_path):
    fill(tmp_path / "elsewhere", 5)
    assert len(EventFolder(options=SIZE | {"path": str(tmp_path / "elsewhere")}).recordings("train")) == 6


def test_what_was_passed_over_is_counted_in_the_warnings(root):
    fill(root, 5)
    special = aedat_bytes(stream(9)) + np.array([0x8000, 2_000_000], ">u4").tobytes()
    for kind in "ab":
        for number in range(5):
            (root / kind / f"{number}.aedat").write_bytes(special)
    for _ in range(2):  # framed, then from the cache
        some = task(format="aedat")
        some.split("train")
        assert some.warnings == ["train: 6 AEDAT recordings have special events, which are left out"]


def test_an_event_outside_the_sensor_names_the_file(root):
    fill(root, 5)
    with pytest.raises(DataError, match=r"[ab]/\d\.bin: event \d+ of 20: [xy] = \d+ is outside the sensor \(0 to 3\)"):
        EventFolder(options=SIZE | {"width": 4, "height": 4}).split("train")


def test_columns_that_are_not_the_four_are_refused():
    with pytest.raises(UsageError, match="columns"):
        task(columns="abc")


@given(st.lists(st.integers(3, 40), min_size=1, max_size=4), st.randoms())
def test_the_split_by_hash_is_disjoint_complete_and_does_not_depend_on_order(sizes, random):
    listed = [f"{kind}/{number}.bin" for kind, size in enumerate(sizes) for number in range(size)]
    parts = _by_hash(listed, ("test", 5), ("validation", 10))
    assert sorted(sum(parts.values(), [])) == sorted(listed)
    random.shuffle(listed)
    assert _by_hash(listed, ("test", 5), ("validation", 10)) == parts
    for kind, size in enumerate(sizes):
        of_kind = {part: sum(name.startswith(f"{kind}/") for name in found) for part, found in parts.items()}
        assert of_kind["test"] == max(1, size // 5) and of_kind["validation"] == max(1, size // 10) and of_kind["train"] > 0
