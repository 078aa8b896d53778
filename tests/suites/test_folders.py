import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.plugin import DataError
from harness.task import SPLITS
from suites.folders import checked_folder, find_folder, images_of, portion, stems

NAMES = st.sets(st.text(min_size=1, max_size=8), max_size=40)


@settings(deadline=None)
@given(NAMES)
def test_splits_share_no_name_and_leave_none_out(names):
    parts = [portion(names, split) for split in SPLITS]
    assert sorted(name for part in parts for name in part) == sorted(names)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_a_name_stays_in_its_split_whatever_else_is_there(names, others):
    for split in SPLITS:
        assert set(portion(names, split)) == set(portion(names | others, split)) & names


def test_shares_are_about_seven_one_and_two_tenths():
    names = [f"image{n}" for n in range(2000)]
    assert [round(len(portion(names, split)) / 2000, 1) for split in SPLITS] == [0.7, 0.1, 0.2]


def test_the_rule_is_the_same_everywhere():
    names = "abcdefgh"  # modulo 100: 99, 65, 58, 40, 30, 77, 57, 39 (hashlib)
    assert (portion(names, "test"), portion(names, "validation"), set(portion(names, "train"))) == (["a"], ["f"], set("bcdegh"))


def test_a_folder_is_found_below_the_data_or_by_its_own_path(tmp_path, monkeypatch):
    (tmp_path / "data" / "mine").mkdir(parents=True)
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
    assert find_folder("mine") == find_folder(str(tmp_path / "data" / "mine")) == tmp_path / "data" / "mine"
    assert find_folder("") is find_folder("other") is None


def test_a_missing_folder_is_named():
    with pytest.raises(DataError, match=r"there is no folder nowhere; name one with \[path=FOLDER\]"):
        checked_folder("nowhere")
    with pytest.raises(DataError, match="no folder is named"):
        checked_folder("")


def test_files_are_found_by_stem_in_the_first_folder_that_is_there(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / "images" / name).touch()
    assert images_of(tmp_path, ("JPEGImages", "images")) == {"a": tmp_path / "images" / "a.jpg", "b": tmp_path / "images" / "b.PNG"}


def test_two_files_of_one_stem_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "a.png"):
        (tmp_path / "images" / name).touch()
    with pytest.raises(DataError, match=r"images holds a\.png and a\.jpg"):
        images_of(tmp_path, ("images",))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no folder JPEGImages/ \(nor images\)"):
        stems(tmp_path, ("JPEGImages", "images"), (".jpg",))
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="has no images in JPEGImages or images"):
        images_of(tmp_path, ("JPEGImages", "images"))
