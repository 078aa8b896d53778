import io

import numpy as np
import pytest
from event_data import aedat_bytes, bin_bytes, stream, streams
from hypothesis import given
from tonic.io import get_aer_events_from_file, read_aedat_header_from_file

from harness.plugin import DataError
from suites.event_files import read_aedat, read_bin, read_events


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def as_rows(events):
    return [tuple(int(row[field]) for field in "xytp") for row in events]


@given(streams())
def test_all_kinds_of_files_hold_the_same_events(events):
    table = np.stack([events[field].astype(np.int64) for field in "txyp"], axis=1)
    events["t"] -= events["t"][0]  # as AEDAT is read
    table[:, 0] -= table[0, 0]
    contents = {
        "a.bin": bin_bytes(events),
        "a.aedat": aedat_bytes(events),
        "a.npy": saved(events),
        "b.npy": saved(table),
        "a.npz": zipped(**{field: events[field] for field in "xytp"}),
    }
    for name, content in contents.items():
        assert as_rows(read_events(name, content)) == as_rows(events), name


def test_aedat_holds_the_words_that_tonic_reads(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat_bytes(stream(200, 128, 128)))
    version, start, _ = read_aedat_header_from_file(str(path))
    theirs = get_aer_events_from_file(str(path), version, start)
    ours = read_aedat("a.aedat", path.read_bytes())
    np.testing.assert_array_equal(ours["x"], theirs["address"] >> 1 & 0x7F)
    np.testing.assert_array_equal(ours["y"], theirs["address"] >> 8 & 0x7F)
    np.testing.assert_array_equal(ours["p"], 1 - (theirs["address"] & 1))
    np.testing.assert_array_equal(ours["t"], theirs["timeStamp"] - theirs["timeStamp"][0])


def test_special_events_are_left_out_and_noted():
    content = aedat_bytes(stream(5, 128, 128)) + np.array([0x8000, 2_000_000], ">u4").tobytes()
    notes = []
    assert len(read_events("a.aedat", content, notes=notes)) == 5
    assert notes == ["AEDAT recordings have special events, which are left out"]
    assert len(read_aedat("a.aedat", content)) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"1234567", r"a\.bin is truncated: 7 bytes"),
        ("a.bin", b"", r"a\.bin is truncated"),
        ("a.aedat", b"#!AER-DAT2.0\r\n1234567", r"a\.aedat is truncated: 7 bytes"),
        ("a.aedat", b"#!AER-DAT3.1\r\n12345678", r"a\.aedat is not AEDAT 2.0 \(its header says 3.1\)"),
        ("a.aedat", b"12345678", r"not AEDAT 2.0 \(its header says nothing\)"),
        ("a.aedat", b"#!AER-DAT3", "not AEDAT 2.0"),
        ("a.npy", b"nothing of the kind", r"a\.npy cannot be read"),
        ("a.npy", b"", r"a\.npy cannot be read"),
        ("a.npz", b"PK\x03\x04 and then nothing", r"a\.npz cannot be read"),
        ("a.npy", saved(np.zeros((3, 5))), r"a\.npy has shape \(3, 5\)"),
        ("a.npz", saved(np.zeros((3, 4))), r"a\.npz is one array"),
        ("a.npy", zipped(x=np.zeros(3)), r"a\.npy is an archive"),
        ("a.npz", zipped(x=np.zeros(3), y=np.zeros(3)), r"a\.npz lacks t, p; it holds x, y"),
        ("a.npz", zipped(x=np.zeros(3), y=np.zeros(3), t=np.zeros(3), p=np.zeros(2)), "several lengths"),
        ("a.mat", b"12345", r"a\.mat is not a known kind"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(name, content, message):
    with pytest.raises(DataError, match=message):
        read_events(name, content)


def test_objects_are_not_loaded_from_files():
    with pytest.raises(DataError, match="cannot be read"):
        read_events("a.npy", saved_objects())


def saved_objects():
    file = io.BytesIO()
    np.save(file, np.array([{"t": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


def test_the_kind_can_be_named():
    events = stream(4)
    assert as_rows(read_events("a.dat", bin_bytes(events), kind="bin")) == as_rows(events)


def test_columns_can_be_named():
    events = stream(4)
    table = np.stack([events[field] for field in "xypt"], axis=1)
    assert as_rows(read_events("a.npy", saved(table), columns="xypt")) == as_rows(events)


def test_overflow_marks_of_bin_files_add_to_the_time():
    content = bin_bytes(stream(1)) + bytes([0, 240, 0, 0, 0]) + bin_bytes(stream(1))
    first, second = read_bin("a.bin", content)["t"]
    assert second - first == 2**13
