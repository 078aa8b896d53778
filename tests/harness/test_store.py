"""Records on disk: whole or not at all, and a broken file never stops the others from being read."""

import hashlib
import json
import os
import time

import pytest

from harness.plugin import UsageError
from harness.record import Record
from harness.store import PART, Store, describe_broken

PATHS = {"key": "key", "test": "accuracy.test", "saved": "memory.saved_bytes", "settings": "settings", "seed": "spec.seed"}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    store.prepare()
    return store


def test_nothing_is_made_until_something_is_written(tmp_path):
    store = Store(tmp_path / "results")
    assert not store.finished("ab") and not store.folder.exists()
    store.prepare()
    assert (tmp_path / "results" / "logs").is_dir()


def test_a_record_is_found_where_its_key_says(store, make_record):
    path = store.write(make_record(key="abc"))
    assert path == store.path("abc") == store.folder / "abc.json"
    assert store.log_path("abc") == store.folder / "logs" / "abc.log"


def test_a_failure_while_writing_leaves_the_old_record_and_no_temporary_file(store, make_record, monkeypatch):
    store.write(make_record(key="abc", duration=1.0))
    before = store.path("abc").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write(make_record(key="abc", duration=2.0))
    assert store.path("abc").read_bytes() == before
    assert [path.name for path in store.folder.iterdir() if path.is_file()] == ["abc.json"]


def test_an_interrupt_while_writing_leaves_nothing(store, make_record, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write(make_record(key="abc"))
    assert not [path for path in store.folder.iterdir() if path.is_file()]


def test_a_later_record_replaces_an_earlier_one_of_the_same_key(store, make_record):
    store.write(make_record(key="abc", duration=1.0))
    store.write(make_record(key="abc", duration=2.0))
    assert Record.model_validate_json(store.path("abc").read_text()).duration == 2.0


def test_old_temporary_files_are_removed_and_young_ones_are_not(store):
    old, young = store.folder / ".a.1.tmp", store.folder / ".b.2.tmp"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    store.prepare()
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("status", ["error", "diverged", "out_of_memory", "timeout", "killed"])
def test_a_failure_is_not_finished(store, make_record, status):
    store.write(make_record(key="abc", status=status))
    assert not store.finished("abc")


def test_only_a_whole_record_with_status_ok_is_finished(store, make_record):
    assert not store.finished("abc")
    path = store.write(make_record(key="abc"))
    assert store.finished("abc")
    path.write_text(path.read_text()[:-5])
    assert not store.finished("abc")
    path.write_bytes(b"\xff\xff")
    assert not store.finished("abc")


def test_select_reads_nested_values_and_none_where_there_is_none(store, make_record):
    store.write(make_record(key="aa", **{"accuracy.test": 0.25, "spec.seed": 3}))
    store.write(make_record(key="bb", accuracy=None))
    rows, broken = store.select(PATHS)
    assert broken == []
    assert [(row["key"], row["test"], row["saved"], row["seed"]) for row in rows] == [("aa", 0.25, None, 3), ("bb", None, None, 0)]
    assert rows[0]["settings"]["training"] == {"epochs": 1}


def test_select_passes_over_broken_files_and_names_them(store, make_record):
    good = store.write(make_record(key="aa")).read_text()
    other = json.loads(good)
    (store.folder / "binary.json").write_bytes(b"\xff\xfe\x00\x80")
    (store.folder / "cut.json").write_text(good[: len(good) // 2])
    (store.folder / "empty.json").write_text("")
    (store.folder / "list.json").write_text("[1, 2]")
    (store.folder / "future.json").write_text(json.dumps({**other, "schema_version": 2}))
    (store.folder / "half.json").write_text(json.dumps({"schema_version": 1, "key": "x"}))
    (store.folder / "folder.json").mkdir()
    rows, broken = store.select(PATHS)
    assert [row["key"] for row in rows] == ["aa"]
    assert sorted(broken) == ["binary.json", "cut.json", "empty.json", "folder.json", "future.json", "half.json", "list.json"]
    line = describe_broken(broken)
    assert line.startswith("7 unreadable record(s): binary.json, cut.json, empty.json...") and "\n" not in line


def test_select_of_a_folder_without_records_is_empty(store, tmp_path):
    assert store.select(PATHS) == ([], [])
    assert Store(tmp_path / "nowhere").select(PATHS) == ([], [])


@pytest.mark.parametrize("name", ["it's", 'say "so"', "a[1]", "star*", "ünï; drop table files", "with space", "100%"])
def test_the_folder_may_have_any_name(tmp_path, make_record, name):
    store = Store(tmp_path / name)
    store.prepare()
    store.write(make_record(key="aa"))
    rows, broken = store.select(PATHS)
    assert ([row["key"] for row in rows], broken) == (["aa"], [])
    assert store.find("a") == store.path("aa")


def test_texts_of_a_record_come_back_as_they_are(store, make_record):
    label = "it's \"a\" \\ label; -- 'x' ü\n"
    store.write(make_record(key="aa", label=label))
    rows, _ = store.select({"label": "label"})
    assert rows[0]["label"] == label


def test_select_passes_over_what_is_not_of_the_type_that_records_have(store, make_record):
    good = json.loads(store.write(make_record(key="aa")).read_text())
    for name, changed in (("label", {"label": 5}), ("settings", {"settings": []}), ("seed", {"spec": {**good["spec"], "seed": "0"}})):
        (store.folder / f"{name}.json").write_text(json.dumps({**good, **changed}))
    (store.folder / "deep.json").write_text(json.dumps({**good, "label": "@"}).replace('"@"', "[" * 5000 + "]" * 5000))
    rows, broken = store.select({"seed": "spec.seed"})
    assert [row["file"] for row in rows] == ["aa.json"] and sorted(broken) == ["deep.json", "label.json", "seed.json", "settings.json"]


def test_select_reads_more_files_than_it_holds_at_a_time(store, make_record):
    text = store.write(make_record(key="aa", **{"accuracy.test": 0.1 + 0.2})).read_text()
    for number in range(2 * PART):
        (store.folder / f"{number:05d}.json").write_text(text if number != PART else "{")
    rows, broken = store.select({"test": "accuracy.test"})
    assert broken == [f"{PART:05d}.json"] and [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert len(rows) == 2 * PART and {row["test"] for row in rows} == {0.1 + 0.2}


class TestVerified:
    def list(self, store, **records):
        (store.folder / "verified.json").write_text(json.dumps({"schema": 1, "records": records}))

    def entry(self, path):
        return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "checked": "2026-01-01", "rerun": False}

    def test_are_the_records_that_are_listed_and_as_they_were(self, store, make_record):
        same, changed = store.write(make_record(key="aa")), store.write(make_record(key="bb"))
        self.list(store, aa=self.entry(same), bb=self.entry(changed), cc={"sha256": "00", "checked": "", "rerun": True})
        store.write(make_record(key="bb", duration=9.0))
        assert store.verified() == {"aa"}

    def test_none_are_without_a_list(self, store, make_record):
        store.write(make_record(key="aa"))
        assert store.verified() == set()

    def test_the_list_itself_is_no_record(self, store, make_record):
        self.list(store, aa=self.entry(store.write(make_record(key="aa"))))
        rows, broken = store.select(PATHS)
        assert (len(rows), broken) == (1, [])

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2, "records": {}}', '{"schema": 1, "records": {"a": 1}}', "[" * 9999])
    def test_a_list_that_cannot_be_read_is_refused(self, store, text):
        (store.folder / "verified.json").write_text(text)
        with pytest.raises(UsageError, match="verified.json is not a list of verified records; write it anew"):
            store.verified()

    def test_a_name_that_leads_out_of_the_folder_is_no_key(self, store, make_record, tmp_path):
        outside = tmp_path / "aa.json"
        outside.write_text("{}")
        self.list(store, **{"../aa": self.entry(outside)})
        assert store.verified() == set()


def test_find_takes_the_beginning_of_a_key_or_a_file(store, make_record, tmp_path):
    for key in ("ab12", "ab34", "cd56"):
        store.write(make_record(key=key))
    assert store.find("c") == store.path("cd56")
    assert store.find("ab12") == store.path("ab12")
    assert store.find(str(tmp_path / "any.json")) == tmp_path / "any.json"


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("ab", "2 records in .* with a key that starts with 'ab'"),
        ("ff", "no record in .* with a key that starts with 'ff'"),
        ("../ab", "neither a record file nor the beginning of a run key"),
        ("*", "neither a record file nor the beginning of a run key"),
        ("", "neither a record file nor the beginning of a run key"),
    ],
)
def test_find_refuses_what_is_ambiguous_or_absent(store, make_record, prefix, message):
    for key in ("ab12", "ab34"):
        store.write(make_record(key=key))
    with pytest.raises(UsageError, match=message):
        store.find(prefix)


def test_a_folder_that_cannot_be_made_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="results folder .* cannot be written: .*; choose another with --results"):
        Store(tmp_path / "file" / "results").prepare()


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    (tmp_path / "results").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        Store(tmp_path / "results").prepare()
