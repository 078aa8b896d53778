import gzip

import numpy as np
import pytest

from harness.plugin import DataError, UsageError
from harness.record import read_record
from suites.csv_series import CsvSeries, read_table

ROWS = [f"{'ab'[n % 2]},{n},{n + 1},{n + 2},{n + 3}" for n in range(20)]
TEXT = "label,t1,t2,t3,t4\n" + "\n".join(ROWS) + "\n"


def write(folder, text, name="mine.csv"):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def task(path, **options):
    return CsvSeries(options={"path": str(path), **options})


@pytest.mark.parametrize("name", ["mine.csv", "mine.csv.gz"])
def test_every_row_is_a_series(tmp_path, name):
    found = read_table(write(tmp_path, TEXT, name), "label")
    assert found.classes == ("a", "b")
    np.testing.assert_array_equal(found.series[3], [[3, 4, 5, 6]])
    assert found.labels.tolist() == [0, 1] * 10


def test_of_each_class_the_fourth_and_fifth_of_five_are_held_out(tmp_path):
    parts = read_table(write(tmp_path, TEXT), "label").parts
    assert np.flatnonzero(parts == "validation").tolist() == [6, 7, 16, 17]
    assert np.flatnonzero(parts == "test").tolist() == [8, 9, 18, 19]
    assert (parts == "train").sum() == 12


def test_a_column_can_name_the_split(tmp_path):
    text = "x,part,label,y\n1,test,a,2\n3,train,b,4\n5,validation,a,6\n7,train,a,8\n"
    found = read_table(write(tmp_path, text), "label", split="part")
    assert found.parts.tolist() == ["test", "train", "validation", "train"]
    np.testing.assert_array_equal(found.series[0], [[1, 2]])


def test_several_channels_take_turns_in_a_row(tmp_path):
    found = read_table(write(tmp_path, TEXT), "label", channels=2)
    np.testing.assert_array_equal(found.series[3], [[3, 5], [4, 6]])


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    text = "label,x\n" + "".join(f"{label},1\n" for label in ("10", "9", "-1") for _ in range(5))
    assert read_table(write(tmp_path, text), "label").classes == ("-1", "9", "10")


def test_a_row_that_ends_early_is_a_shorter_series_with_zeros_in_front(tmp_path):
    text = TEXT.replace("a,0,1,2,3", "a,0,1,,").replace("b,1,2,3,4", "b,1")
    made = task(write(tmp_path, text))
    assert made.steps == 4
    inputs = made.split("train").inputs[..., 0]
    assert (inputs[0, :2] == 0).all() and (inputs[0, 2:] != 0).all()
    assert (inputs[1, :3] == 0).all() and inputs[1, 3] != 0


def test_the_file_decides_steps_classes_and_channels(tmp_path):
    made = task(write(tmp_path, TEXT), channels=2)
    assert (made.steps, made.head.classes, made.input_shape) == (2, 2, (2,))
    assert made.split("train").inputs.shape == (12, 2, 2)
    assert made.split("train").targets.tolist()[:4] == [0, 1, 0, 1]
    assert made.unavailable() is None


def test_length_resamples(tmp_path):
    made = task(write(tmp_path, TEXT), length=2)
    assert made.split("test").inputs.shape == (4, 2, 1)
    values = np.array([[n, n + 1, n + 2, n + 3] for n in range(20)], dtype=float)
    chosen = values[[n for n in range(20) if n not in (6, 7, 8, 9, 16, 17, 18, 19)]]
    expected = (values[[8, 9, 18, 19]].reshape(4, 2, 2).mean(2) - chosen.mean()) / chosen.std()
    np.testing.assert_allclose(made.split("test").inputs[..., 0], expected, rtol=1e-5)


def test_another_content_has_another_checksum(tmp_path):
    path = write(tmp_path, TEXT)
    before = task(path).checksum()
    path.write_text(TEXT.replace("a,0,1", "a,99,1"))
    assert task(path).checksum() != before
    assert task(path).split("train").inputs[0, 0, 0] == task(path).split("train").inputs.max()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("a,0,1,2,3", "a,0,,2,3"), r"mine\.csv, line 2: value 2 is missing; fill gaps"),
        (TEXT.replace("b,1,2,3,4", "b,1,two,3,4"), r"mine\.csv, line 3: value 2 is 'two', not a finite number"),
        (TEXT.replace("b,1,2,3,4", "b,1,nan,3,4"), r"line 3: value 2 is 'nan'"),
        (TEXT.replace("b,1,2,3,4", "b,1,2,3,4,5"), r"line 3: 6 cells, but 5 columns"),
        (TEXT.replace("b,1,2,3,4", ",1,2,3,4"), r"line 3, column label: nothing in it"),
        (TEXT.replace("b,1,2,3,4", "b"), r"line 3: 0 values"),
        (TEXT.replace("label,", "lable,"), r"0 columns named 'label'; needed: 1; did you mean 'lable'\?"),
        (TEXT.replace("b,", "a,"), r"1 classes in column 'label'; at least 2"),
        ("label,x\na,1\nb,2\n", r"gives no series to validation and test; 5 of a class are needed"),
        ("", r"0 columns named 'label'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message):
        read_table(path, "label")
    assert task(path).unavailable()


def test_a_split_that_is_none_is_named(tmp_path):
    path = write(tmp_path, "label,part,x\na,train,1\nb,tset,2\n")
    with pytest.raises(DataError, match=r"line 3, column part: 'tset' is no split; did you mean 'test'\?"):
        read_table(path, "label", split="part")


def test_values_that_are_no_whole_steps_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"line 2: 4 values are not whole steps of 3"):
        read_table(write(tmp_path, TEXT), "label", channels=3)


def test_without_a_file_the_task_says_what_to_give():
    assert CsvSeries().unavailable() == "say which file: sequences/csv[path=FILE.csv]"
    with pytest.raises(UsageError, match="say which file"):
        CsvSeries().load("train")


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "there is no file gone.csv" in task("gone.csv").unavailable()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stbp", "ann"])
def test_a_network_learns_the_series_of_a_file(command, tmp_path, method):
    generator = np.random.default_rng(0)
    time = np.arange(40)
    lines = [",".join(["shape", *(f"t{step}" for step in time)])]
    for number in range(200):
        wave = np.sin((time + generator.uniform(0, 20)) * (0.3 if number % 2 else 0.6)) + generator.normal(0, 0.2, 40)
        lines.append(",".join(["slow" if number % 2 else "fast", *(f"{value:.3f}" for value in wave)]))
    path = write(tmp_path, "\n".join(lines))
    results = tmp_path / "results"
    name = f"sequences/csv[label=shape,path={path}]"
    outcome = command("run", "-t", name, "-m", method, "--jobs", "1", "--threads", "1", "--results", results)
    assert outcome.status == 0, outcome
    (found,) = results.glob("*.json")
    record = read_record(found)
    assert record.accuracy.test_samples == 40
    assert record.accuracy.test > 0.8
