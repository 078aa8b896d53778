import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.plugin import DataError, UsageError
from harness.task import SPLITS, Budget
from methods.stbp import Stbp
from suites.time_series import EttH1, Series


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    return tmp_path


def write(folder, values, name="mine.csv"):
    header = ",".join(["date", *(f"c{n}" for n in range(values.shape[1]))])
    np.savetxt(folder / name, np.column_stack([np.arange(len(values)), values]), delimiter=",", header=header, comments="", fmt="%.17g")


def series(**options):
    task = Series(options={"path": "mine.csv", "window": 8, "horizon": 3} | options)
    task.budget = Budget(task.budget.training, task.budget.backbone)
    return task


@pytest.fixture
def walk(folder):
    values = np.random.RandomState(0).randn(200, 3).cumsum(0)
    write(folder, values)
    return values


def test_columns_have_mean_0_and_variance_1_in_the_training_rows(walk):
    scaled = series().series
    train = walk[:120]
    np.testing.assert_allclose(scaled, (walk - train.mean(0)) / train.std(0), rtol=1e-5, atol=1e-5)


def test_samples_are_all_windows_whose_forecast_lies_in_the_split(walk):
    task = series()
    scaled = task.series
    for split, (start, stop) in {"train": (0, 120), "validation": (120, 160), "test": (160, 200)}.items():
        first = start if start else 8
        expected = [scaled[row - 8 : row + 3] for row in range(first, stop - 3 + 1)]
        data = task.split(split)
        found = torch.cat([data.inputs, data.targets[:, 1:]], 1)
        assert len(found) == len(expected)
        assert sorted(map(tuple, found.flatten(1).tolist())) == sorted(map(tuple, torch.stack(expected).flatten(1).tolist()))
        assert torch.equal(data.inputs[:, -1], data.targets[:, 0])


def test_no_training_sample_has_a_row_of_another_split(walk, folder):
    before = series().split("train")
    changed = walk.copy()
    changed[120:] += 100
    write(folder, changed)
    after = series().split("train")
    assert torch.equal(before.inputs, after.inputs) and torch.equal(before.targets, after.targets)


def test_a_forecast_is_scored_as_it_is_though_differences_are_answered(walk):
    task = series()
    batch = task.gather("test", torch.arange(20))
    last, wanted = batch.targets[:, :1], batch.targets[:, 1:]
    error = torch.randn(wanted.shape)
    scorer = task.scorer()
    scorer.update((wanted - last + error).flatten(1), batch.targets)
    found = scorer.compute()
    assert found["mse"] == pytest.approx(error.square().mean().item(), rel=1e-4)
    spread = (wanted - wanted.mean(0)).square().sum()
    assert found["rrse"] == pytest.approx((error.square().sum() / spread).sqrt().item(), rel=1e-4)
    assert task.loss((wanted - last + error).flatten(1), batch.targets).item() == pytest.approx(error.square().mean().item(), rel=1e-4)


def test_the_network_gets_differences_from_the_last_row(walk):
    task = series()
    inputs = task.split("test").inputs[:4]
    assert torch.equal(task.batch(inputs, torch.zeros(4, 1), torch.arange(4)).inputs, inputs - inputs[:, 7:])


def test_one_column_can_be_forecast_from_all(walk):
    task = series(target="c1")
    whole = series().split("test").targets
    assert task.input_shape == (3,) and task.head.classes == 3
    assert torch.equal(task.split("test").targets, whole[:, :, 1:2])
    method = Stbp(task)
    batch = task.gather("test", torch.arange(4))
    loss = method.loss(task.final(method.build()(task.encode(batch.inputs, 8))), batch.targets)
    assert loss.isfinite()


def test_an_unknown_column_is_refused_with_the_nearest(walk):
    with pytest.raises(UsageError, match="no column 'c11'; did you mean 'c1'"):
        series(target="c11").split("train")


def test_a_column_that_never_changes_is_told_in_a_warning(folder):
    values = np.random.RandomState(0).randn(200, 2)
    values[:, 1] = 7
    write(folder, values)
    task = series()
    assert torch.equal(task.series[:, 1], torch.zeros(200))
    (warning,) = task.warnings
    assert warning.endswith(": c1")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 80), st.integers(2, 20), st.integers(1, 20))
def test_a_series_is_split_or_refused_by_name(tmp_path_factory, rows, window, horizon):
    folder = tmp_path_factory.mktemp("series")
    write(folder, np.random.RandomState(0).randn(rows, 1))
    task = series(path=str(folder / "mine.csv"), window=window, horizon=horizon)
    ends = [rows * share // 100 for share in (60, 80, 100)]
    starts = [0, ends[0] - window, ends[1] - window]
    for split, start, stop in zip(SPLITS, starts, ends, strict=True):
        count = stop - start - window - horizon + 1
        if start >= 0 and count > 0:
            assert len(task.split(split)) == count
        else:
            with pytest.raises(DataError, match=r"mine\.csv.* too few rows"):
                task.split(split)


def test_a_gap_makes_the_task_unavailable_and_is_named_with_its_place(folder):
    (folder / "mine.csv").write_text("a,b\n1,2\n3,\n")
    assert "mine.csv, line 3, column 'b': there is a gap" in series().unavailable()


def test_a_missing_file_is_named_with_what_to_do(folder):
    assert Series().unavailable() == "say which file: sequences/series[path=FILE]"
    assert "put mine.csv below SPIKEBENCH_DATA" in series().unavailable()


def test_a_series_of_fewer_rows_than_the_split_needs_is_refused(folder, monkeypatch):
    write(folder, np.random.RandomState(0).randn(9000, 7))
    task = EttH1()
    monkeypatch.setattr(type(task), "source", Series(options={"path": "mine.csv"}).source)
    with pytest.raises(DataError, match="9000 rows, the split needs 14400"):
        task.split("train")
