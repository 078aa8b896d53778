import pytest
from voc_tree import annotation, picture, thing, write

from harness.plugin import DataError
from harness.task import SPLITS
from suites.voc_folder import VocFolder

NAMES = [f"p{n}" for n in range(30)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    for seed, name in enumerate(NAMES):
        picture(tmp_path / "pets" / "images" / f"{name}.png", seed)
        write(tmp_path / "pets" / "annotations" / f"{name}.xml", annotation(thing("dog" if seed % 2 else "cat")))
    return tmp_path / "pets"


def task(**options):
    return VocFolder(options={"path": "pets", "size": 64} | options)


def stems_of(found, split):
    return [path.stem for path in found.load(split).paths]


def test_classes_are_read_from_the_annotations(folder):
    assert task().classes == ("cat", "dog")
    assert task().head.classes == 2
    assert task().unavailable() is None


def test_splits_share_no_image_and_leave_none_out(folder):
    parts = [stems_of(task(), split) for split in SPLITS]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)
    assert all(parts)


def test_the_folders_own_lists_decide_where_there_are_all_three(folder):
    lists = {"train": NAMES[:2], "val": NAMES[2:3], "test": NAMES[5:8]}
    for name, names in lists.items():
        write(folder / "ImageSets" / "Main" / f"{name}.txt", "\n".join(names))
    assert [stems_of(task(), split) for split in SPLITS] == list(lists.values())


def test_a_list_that_names_what_is_not_there_is_refused(folder):
    for name in ("train", "val", "test"):
        write(folder / "ImageSets" / "Main" / f"{name}.txt", f"gone{name}")
    with pytest.raises(DataError, match=r"train\.txt names gonetrain"):
        task().load("train")


def test_lists_that_share_an_image_are_refused(folder):
    for name in ("train", "val", "test"):
        write(folder / "ImageSets" / "Main" / f"{name}.txt", "p3")
    with pytest.raises(DataError, match="p3 is listed twice"):
        task().load("train")


def test_an_image_without_annotation_is_named(folder):
    (folder / "annotations" / "p7.xml").unlink()
    assert "image p7 has no annotation (1 such)" in task().unavailable()
    with pytest.raises(DataError, match="image p7 has no annotation"):
        task().load("train")


def test_an_annotation_without_image_is_named(folder):
    (folder / "images" / "p7.png").unlink()
    assert "annotation p7 has no image" in task().unavailable()


def test_no_folder_or_an_empty_one_is_said(folder):
    assert "no folder is named" in VocFolder().unavailable()
    assert "there is no folder birds" in task(path="birds").unavailable()
    for name in NAMES:
        write(folder / "annotations" / f"{name}.xml", annotation())
    assert "has no objects" in task().unavailable()


def test_too_few_images_for_a_split_are_said(folder):
    for name in NAMES[1:]:
        (folder / "annotations" / f"{name}.xml").unlink()
        (folder / "images" / f"{name}.png").unlink()
    with pytest.raises(DataError, match="pets has no image for the .* split; 1 in all are too few"):
        for split in SPLITS:
            task().load(split)


def test_the_checksum_follows_annotations_and_images(folder):
    before = task().checksum()
    assert before == task().checksum()
    write(folder / "annotations" / "p0.xml", annotation(thing("dog")))
    between = task().checksum()
    picture(folder / "images" / "p0.png", 99, size=(50, 40))
    assert len({before, between, task().checksum()}) == 3


def test_the_name_holds_the_folder(folder):
    assert task().name == "detection/voc-folder[path=pets,size=64]"
