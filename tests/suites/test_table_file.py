import csv
import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plugin import DataError
from suites.table_file import columns, read


@pytest.fixture
def file(tmp_path):
    def write(text, name="mine.csv"):
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return tmp_path / name

    return write


@given(
    st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1, max_size=20),
    st.booleans(),
    st.booleans(),
)
def test_numbers_come_back_as_they_were_written(tmp_path_factory, rows, header, dated):
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    dated = dated and header
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        if header:
            writer.writerow([*(["date"] if dated else []), "a", "b", "c"])
        writer.writerows([*(["2016-07-01 00:00"] if dated else []), *map(repr, row)] for row in rows)
    table = read(path)
    assert np.array_equal(table.values, np.array(rows))
    assert table.columns == columns(path) == (("a", "b", "c") if header else ("column 1", "column 2", "column 3"))


def test_a_compressed_file_is_unpacked(file):
    path = file(gzip.compress(b"a,b\n1,2\n"), "mine.csv.gz")
    assert read(path).values.tolist() == [[1, 2]]


def test_a_byte_order_mark_and_empty_lines_at_the_end_are_no_data(file):
    table = read(file(b"\xef\xbb\xbfa,b\n1,2\n\n"))
    assert table.columns == ("a", "b")
    assert table.values.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,a,b\nx,1,2\ny,,3\n", r"mine\.csv, line 3, column 'a': there is a gap; fill it"),
        ("a,b\n1,2\n3,four\n", r"mine\.csv, line 3, column 'b': 'four' is not a finite number"),
        ("a,b\n1,2\n3,nan\n", r"line 3, column 'b': 'nan' is not a finite number"),
        ("a,b\n1,2\n3,inf\n", r"line 3, column 'b': 'inf' is not a finite number"),
        ("1,2\n3\n", r"mine\.csv, line 2: 1 cells where there should be 2"),
        ("1,2\n3,4,5\n", r"line 2: 3 cells where there should be 2"),
        ("2016-07-01,1\n2016-07-02,2\n", r"line 1, column 'column 1': '2016-07-01' is not a finite number; a column of times .* date"),
        ("", r"mine\.csv has no rows"),
        ("a,b\n", r"mine\.csv has a header and no rows"),
        ("date\n2016\n", r"mine\.csv has no column of numbers"),
        (b"a,b\n1,\xff\n", r"mine\.csv is not text in UTF-8"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_not_a_table_of_numbers_is_named_with_its_place(file, text, message):
    with pytest.raises(DataError, match=message):
        read(file(text))


def test_lines_are_those_of_the_file_where_a_cell_has_several(file):
    with pytest.raises(DataError, match="line 4"):
        read(file('"a\nb",c\n1,2\nx,3\n'))


@pytest.mark.parametrize("cut", [5, 40])
def test_a_compressed_file_that_is_cut_off_is_damaged(file, cut):
    whole = gzip.compress(b"".join(b"%d,%d\n" % (n, n * n) for n in range(100)))
    with pytest.raises(DataError, match=r"mine\.csv\.gz cannot be read"):
        read(file(whole[:cut], "mine.csv.gz"))


def test_a_file_that_is_not_compressed_though_its_name_says_so_is_damaged(file):
    with pytest.raises(DataError, match=r"mine\.csv\.gz cannot be read: Not a gzipped file"):
        read(file("1,2\n", "mine.csv.gz"))
