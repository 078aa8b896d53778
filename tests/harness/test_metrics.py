"""The registry of metrics and how values are written."""

import math

import pytest

from harness.metrics import METRICS, format_value, metric, scale_for
from harness.plugin import UsageError

PATHS = {
    "test_accuracy": "accuracy.test",
    "validation_accuracy": "accuracy.validation",
    "steps_used": "accuracy.steps_used",
    "spikes": "activity.spikes_per_sample",
    "firing_rate": "activity.firing_rate",
    "synops": "activity.synops_effective",
    "synops_dense": "activity.synops_dense",
    "ac": "activity.synops_ac",
    "mac": "activity.synops_mac",
    "other": "activity.synops_other",
    "macs_nominal": "activity.macs_nominal",
    "energy": "activity.energy",
    "updates": "activity.membrane_updates",
    "state_bytes": "activity.state_bytes",
    "activation_sparsity": "activity.activation_sparsity",
    "connection_sparsity": "activity.connection_sparsity",
    "saved_bytes": "memory.saved_bytes",
    "parameter_bytes": "memory.parameter_bytes",
    "footprint_bytes": "memory.footprint_bytes",
    "optimizer_bytes": "memory.optimizer_bytes",
    "transient_bytes": "memory.transient_bytes",
    "rss_bytes": "memory.peak_rss_growth_bytes",
    "cuda_bytes": "memory.cuda_peak_bytes",
    "gradient_cosine": "gradients.mean_cosine",
    "step_time": "time.step_median",
    "forward_time": "time.forward_median",
    "backward_time": "time.backward_median",
    "optimizer_time": "time.optimizer_median",
    "epoch_time": "time.epoch_mean",
    "target_time": "time.to_target",
    "loading_time": "time.loading",
    "measuring_time": "time.measuring",
    "total_time": "time.total",
    "latency": "inference.latency_median",
    "throughput": "inference.throughput",
    "parameters": "memory.parameter_count",
    "storage_bits": "report.storage_bits",
    "steps_to_ann": "report.steps_to_ann",
}


def test_every_metric_is_where_the_record_keeps_it():
    assert {name: each.path for name, each in METRICS.items()} == PATHS


def test_names_are_keys_and_titles_are_distinct():
    assert all(name == each.name for name, each in METRICS.items())
    assert len({each.title for each in METRICS.values()}) == len(METRICS)


HIGHER = ("test_accuracy", "validation_accuracy", "throughput", "activation_sparsity", "connection_sparsity", "gradient_cosine")


@pytest.mark.parametrize("name", METRICS)
def test_the_worst_value_is_never_better_than_another(name):
    each = metric(name)
    assert each.direction == ("higher" if name in HIGHER else "lower")
    assert each.better(0.5, each.worst) and not each.better(each.worst, 0.5)


def test_equal_values_and_nan_are_not_better():
    accuracy = metric("test_accuracy")
    assert not accuracy.better(0.9, 0.9) and not accuracy.better(math.nan, 0.9) and not accuracy.better(0.9, math.nan)


def test_an_unknown_metric_is_told_the_nearest_name():
    with pytest.raises(UsageError, match="no metric 'test_acuracy'; did you mean 'test_accuracy'"):
        metric("test_acuracy")


def test_a_value_is_read_by_its_path_and_none_where_it_was_not_measured():
    record = {"accuracy": {"test": 0.5}, "memory": {"cuda_peak_bytes": None}, "time": None}
    assert metric("test_accuracy").read(record) == 0.5
    assert [metric(name).read(record) for name in ("cuda_bytes", "step_time", "latency", "validation_accuracy")] == [None] * 4


@pytest.mark.parametrize(
    ("name", "mean", "std", "n", "text"),
    [
        ("test_accuracy", 0.934, None, None, "93.40 %"),
        ("test_accuracy", 0.934, 0.004, 5, "93.40 ± 0.40 % (n=5)"),
        ("firing_rate", 0.0712, None, None, "7.12 %"),
        ("saved_bytes", 960, None, None, "960 B"),
        ("saved_bytes", 1536, None, None, "1.500 KiB"),
        ("saved_bytes", 17.2 * 2**20, 2**20, 3, "17.20 ± 1.00 MiB (n=3)"),
        ("cuda_bytes", 3 * 2**30, None, None, "3 GiB"),
        ("step_time", 0.01234, 0.0005, None, "12.34 ± 0.50 ms"),
        ("latency", 0.00002, None, None, "20.00 µs"),
        ("total_time", 95.25, None, None, "95.25 s"),
        ("steps_used", 3.5, None, None, "3.50"),
        ("spikes", 12345.6, None, None, "12.35 k"),
        ("parameters", 17354, None, None, "17.35 k"),
        ("throughput", 12345.6, None, None, "12346 samples/s"),
        ("synops", 0.0, None, None, "0"),
        ("saved_bytes", 960, 0.5, 2, "960.0 ± 0.5 B (n=2)"),
        ("test_accuracy", 0.5, math.nan, 1, "50.00 % (n=1)"),
    ],
)
def test_values_are_written_in_a_unit_that_fits(name, mean, std, n, text):
    assert format_value(metric(name), mean, std, n) == text


@pytest.mark.parametrize("mean", [None, math.nan, math.inf])
def test_what_was_not_measured_is_a_dash(mean):
    assert format_value(metric("saved_bytes"), mean, 1.0, 3) == "-"


def test_a_column_shares_the_unit_of_its_largest_value():
    saved = metric("saved_bytes")
    scale = scale_for(saved, [512, None, math.inf, 3 * 2**20])
    assert scale.unit == "MiB"
    assert format_value(saved, 2**19, scale=scale) == "0.5000 MiB"
    assert scale_for(saved, []).unit == "B"


def test_a_time_that_was_never_reached_is_infinite():
    assert format_value(metric("target_time"), math.inf) == "∞"
