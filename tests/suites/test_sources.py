import hashlib

import numpy as np
import pytest

from harness.plugin import DataError, UsageError
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from suites import sources
from suites.classification import ClassificationTask
from suites.sources import FileTask, Source, cached_arrays, digest

CONTENT = b"some data"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("SPIKEBENCH_DATA", str(folder))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    return folder


def put(root):
    (root / "vision").mkdir(parents=True, exist_ok=True)
    (root / "vision" / "a.bin").write_bytes(CONTENT)


SOURCE = Source(({"vision/a.bin": SHA},))


class Filed(FileTask, ClassificationTask):
    card = TaskCard("static/filed", "A file", "-", "-", "-", "-")
    input_shape = (1,)
    head = Head("classify", classes=2)
    steps = 1
    budgets = {"smoke": Budget(Training(epochs=1), Backbone("conv", (4,)))}
    source = SOURCE

    def load(self, split):
        self.source.require()
        return Data(np.zeros(1), np.zeros(1))


def test_missing_files_are_named_with_what_to_do(data):
    assert "put vision/a.bin below SPIKEBENCH_DATA" in Filed().unavailable()
    with pytest.raises(DataError, match=r"vision/a\.bin"):
        SOURCE.require()


def test_files_that_are_there_are_found_in_any_folder_named(data, tmp_path, monkeypatch):
    other = tmp_path / "other"
    put(other)
    monkeypatch.setenv("SPIKEBENCH_DATA", f"{data}:{other}")
    assert SOURCE.require().path("vision/a.bin").read_bytes() == CONTENT
    assert Filed().unavailable() is None


def test_a_damaged_file_is_named(data):
    put(data)
    (data / "vision" / "a.bin").write_bytes(CONTENT[:-1])
    assert "vision/a.bin is damaged or another version" in Filed().unavailable()
    with pytest.raises(DataError):
        Filed().load("train")


def test_the_checksum_follows_the_content_and_not_the_place(data, tmp_path, monkeypatch):
    free = Source(({"vision/a.bin": ""},))
    put(data)
    first = free.checksum()
    put(tmp_path / "elsewhere")
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "elsewhere"))
    assert free.checksum() == first
    (tmp_path / "elsewhere" / "vision" / "a.bin").write_bytes(b"other")
    assert free.checksum() != first


def test_a_folder_is_known_by_names_and_sizes(tmp_path):
    (tmp_path / "f").mkdir()
    before = digest(tmp_path / "f")
    (tmp_path / "f" / "x").write_text("1")
    assert digest(tmp_path / "f") != before


def test_a_download_goes_where_it_can_be_found_and_is_verified(data):
    source = Source(({"vision/a.bin": SHA},), download=put, size="9 B")
    task = Filed()
    task.source = source
    assert task.download_size() == "9 B"
    task.fetch()
    assert task.download_size() is None and task.unavailable() is None


def test_a_download_that_brings_something_else_is_refused(data):
    def wrong(root):
        put(root)
        (root / "vision" / "a.bin").write_bytes(b"something else")

    with pytest.raises(DataError, match="damaged"):
        Source(({"vision/a.bin": SHA},), download=wrong, size="9 B").fetch("static/filed")


def test_a_download_that_fails_says_so_in_one_line(data):
    def offline(root):
        raise OSError("no route to host\nand more")

    with pytest.raises(UsageError, match=r"^static/filed: the download failed: OSError: no route to host$"):
        Source(({"vision/a.bin": SHA},), download=offline, size="9 B").fetch("static/filed")


def test_a_read_only_folder_is_passed_over_for_downloads(data, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.os, "access", lambda path, mode: path != data)
    source = Source(({"vision/a.bin": SHA},), download=put, size="9 B")
    source.fetch("static/filed")
    assert source.require().root == tmp_path / "cache" / "data"


def test_the_first_complete_variant_counts(data):
    source = Source(({"vision/b.bin": ""}, {"vision/a.bin": SHA}))
    put(data)
    assert list(source.require().files) == ["vision/a.bin"]


class TestCachedArrays:
    def test_are_computed_once(self, data):
        calls = []

        def make():
            calls.append(1)
            return {"x": np.arange(3)}

        for _ in range(2):
            assert cached_arrays("test", "key", make)["x"].tolist() == [0, 1, 2]
        assert len(calls) == 1
        cached_arrays("test", "other key", make)
        assert len(calls) == 2

    def test_a_truncated_file_is_made_again(self, data, tmp_path):
        cached_arrays("test", "key", lambda: {"x": np.arange(1000)})
        (path,) = (tmp_path / "cache" / "test").glob("*.npz")
        path.write_bytes(path.read_bytes()[:100])
        assert cached_arrays("test", "key", lambda: {"x": np.arange(2)})["x"].tolist() == [0, 1]

    def test_work_without_a_writable_cache(self, data, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "file"))
        assert cached_arrays("test", "key", lambda: {"x": np.arange(2)})["x"].tolist() == [0, 1]
