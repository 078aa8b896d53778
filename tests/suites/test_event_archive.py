import io
import tarfile

import numpy as np
import pytest
from event_data import bin_bytes, stream

from harness.plugin import DataError
from suites.event_archive import archived
from suites.event_files import read_bin


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))


def archive(path, contents, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def read(path):
    return archived(path, ".bin", lambda name: int(name.split("/")[0]), read_bin, 34, 34)


CONTENTS = {
    "1/10.bin": bin_bytes(stream(9, seed=1)),
    "0/2.bin": bin_bytes(stream(5, seed=2)),
    "1/9.bin": bin_bytes(stream(7, seed=3)),
    "0/readme": b"x",
}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_members_are_read_in_natural_order_with_their_classes(tmp_path, mode):
    found = read(archive(tmp_path / "a.tar", CONTENTS, mode))
    assert (found.names, found.targets) == (["0/2.bin", "1/9.bin", "1/10.bin"], [0, 1, 1])
    for place, seed, count in ((0, 2, 5), (1, 3, 7), (2, 1, 9)):
        np.testing.assert_array_equal(found[place], stream(count, seed=seed))


def test_a_truncated_archive_is_named(tmp_path):
    path = archive(tmp_path / "a.tar.gz", CONTENTS)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"a\.tar\.gz cannot be unpacked"):
        read(path)


def test_what_is_no_archive_is_named(tmp_path):
    path = tmp_path / "a.tar.xz"
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"a\.tar\.xz cannot be unpacked"):
        read(path)


def test_an_archive_without_recordings_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.tar\.gz has no member that ends in \.bin"):
        read(archive(tmp_path / "a.tar.gz", {"0/readme": b"x"}))


def test_a_damaged_member_is_named_with_its_archive(tmp_path):
    path = archive(tmp_path / "a.tar.gz", CONTENTS | {"0/3.bin": b"1234567"})
    with pytest.raises(DataError, match=r"0/3\.bin is truncated"):
        read(path)
    outside = stream(5)
    outside["x"][2] = 40
    path = archive(tmp_path / "b.tar.gz", CONTENTS | {"0/3.bin": bin_bytes(outside)})
    with pytest.raises(DataError, match=r"b\.tar\.gz: 0/3\.bin: event 2 of 5: x = 40"):
        read(path)


def test_a_changed_archive_is_read_anew(tmp_path):
    path = archive(tmp_path / "a.tar.gz", CONTENTS)
    assert len(read(path)) == 3
    archive(path, {"0/1.bin": bin_bytes(stream(4))})
    assert read(path).names == ["0/1.bin"]
