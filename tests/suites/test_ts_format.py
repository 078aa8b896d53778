import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plugin import DataError
from suites.ts_format import read_ts

HEADER = "# about\n@problemName Toy\n@timeStamps false\n@univariate false\n@dimensions 2\n@equalLength false\n@classLabel true a b\n@data\n"


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["toy.ts", "toy.ts.gz"])
def test_series_and_classes_are_read(tmp_path, name):
    found = read_ts(write(tmp_path / name, HEADER + "1,2,3:4,5,6:a\n-1e-3,2:0,1:b\n"))
    assert found.classes == ("a", "b")
    assert found.labels == ["a", "b"]
    np.testing.assert_array_equal(found.series[0], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(found.series[1], [[-0.001, 2], [0, 1]])


VALUES = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6), st.sampled_from("ab")), min_size=1, max_size=5))
def test_what_is_written_is_read(tmp_path_factory, rows):
    lines = [":".join(",".join(map(repr, channel)) for channel in zip(*steps, strict=True)) + f":{label}" for steps, label in rows]
    found = read_ts(write(tmp_path_factory.mktemp("ts") / "toy.ts", HEADER + "\n".join(lines)))
    assert found.labels == [label for _, label in rows]
    for series, (steps, _) in zip(found.series, rows, strict=True):
        np.testing.assert_array_equal(series, np.array(steps).T)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "1,2:3,4:c\n", r"toy\.ts, line 9: class 'c' is unknown; the header allows a, b"),
        (HEADER + "1,?:3,4:a\n", r"line 9, channel 1: value 2 is missing"),
        (HEADER + "1,2:,4:a\n", r"line 9, channel 2: value 1 is missing"),
        (HEADER + "1,x:3,4:a\n", r"line 9, channel 1: value 2 is 'x', not a finite number"),
        (HEADER + "1,nan:3,4:a\n", r"value 2 is 'nan', not a finite number"),
        (HEADER + "1,2:3,inf:a\n", r"channel 2: value 2 is 'inf'"),
        (HEADER + "1,2:3:a\n", r"line 9: its channels have 2, 1 values"),
        (HEADER + "1,2:a\n", r"line 9: 1 channels, the header says 2"),
        (HEADER + "1,2,3\n", r"line 9: no ':'"),
        (HEADER, r"toy\.ts holds no series"),
        ("", r"toy\.ts holds no series"),
        (HEADER.replace("@classLabel true a b\n", "") + "1:2:a", r"no line '@classLabel true"),
        (HEADER.replace("@classLabel true a b", "@classLabel false") + "1:2:a", r"no line '@classLabel true"),
        (HEADER.replace("@timeStamps false", "@timeStamps true") + "1:2:a", r"time stamps"),
        (HEADER.replace("@equalLength false", "@equalLength true\n@seriesLength 3") + "1,2:3,4:a", r"2 values, the header says 3"),
        (HEADER.replace("@dimensions 2\n", "") + "1:2:a\n1:a", r"1 channels, the first series has 2"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named_with_the_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_ts(write(tmp_path / "toy.ts", text))


@pytest.mark.parametrize("damage", [lambda packed: packed[:-20], lambda packed: b"not gzip" + packed, lambda packed: b""])
def test_a_packed_file_that_is_damaged_is_named(tmp_path, damage):
    path = tmp_path / "toy.ts.gz"
    path.write_bytes(damage(gzip.compress((HEADER + "1,2:3,4:a\n" * 50).encode())))
    with pytest.raises(DataError, match=r"toy\.ts\.gz (cannot be unpacked|holds no series)"):
        read_ts(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read gone\.ts"):
        read_ts(tmp_path / "gone.ts")
