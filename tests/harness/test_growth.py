"""Curves over T, length, depth and batch from records, and their plots."""

import pytest

from harness.metrics import metric
from harness.report.growth import grown
from harness.report.plot import growth, save
from harness.store import Store

SAVED = metric("spikes")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "records")
    store.prepare()
    return store


@pytest.fixture
def add(store, make_record):
    count = iter(range(1000))

    def write(spikes=1.0, **changes):
        store.write(make_record(key=f"{next(count):04x}", **{"activity.spikes_per_sample": spikes, **changes}))

    return write


def curves(store, axis, **given):
    found, broken = grown(store, (axis,), [SAVED], **given)
    assert broken == []
    return [
        (each.about["task"], curve.label, list(curve.x), list(curve.y), n)
        for each in found
        for curve, n in zip(each.curves, each.seeds, strict=True)
    ]


def test_runs_that_differ_in_time_steps_alone_are_a_curve(store, add):
    for steps, seed, spikes in ((4, 0, 10.0), (4, 1, 30.0), (8, 0, 50.0), (8, 1, 70.0), (2, 0, 7.0)):
        add(spikes, **{"settings.steps": steps, "spec.steps": steps, "spec.seed": seed})
    add(99.0, **{"settings.steps": 16, "settings.code_hash": "other"})
    add(99.0, **{"settings.steps": 16, "settings.options": {"leak": 0.1}})
    assert curves(store, "steps") == [("static/digits", "stbp", [2, 4, 8], [7.0, 20.0, 60.0], 1)]
    assert curves(store, "depth") == curves(store, "batch") == curves(store, "length") == []


def test_depth_batch_and_length_are_found_where_records_keep_them(store, add):
    for depth in (1, 2):
        add(10.0 * depth, **{"settings.backbone": {"depth": depth}, "spec.depth": depth})
    for batch in (16, 32):
        add(1.0 * batch, **{"settings.training": {"batch_size": batch}, "spec.samples": 14 * batch, "settings.options": {"a": 1}})
    for length in (8, 16):
        add(2.0 * length, **{"spec.task": f"sequences/adding[length={length}]", "settings.steps": length})
    assert curves(store, "depth") == [("static/digits", "stbp", [1, 2], [10.0, 20.0], 1)]
    assert curves(store, "batch") == [("static/digits", "stbp", [16, 32], [16.0, 32.0], 1)]
    assert curves(store, "length") == [("sequences/adding", "stbp", [8, 16], [16.0, 32.0], 1)]


def test_devices_and_methods_are_kept_apart_and_can_be_chosen(store, add):
    for steps in (2, 4):
        for device in ("One CPU", "Other CPU"):
            add(**{"settings.steps": steps, "environment.device": device})
        add(**{"settings.steps": steps, "spec.method": "ottt", "environment.device": "One CPU"})
    assert [label for _, label, *_ in curves(store, "steps")] == ["ottt", "stbp", "stbp"]
    assert [label for _, label, *_ in curves(store, "steps", methods=["ottt"])] == ["ottt"]
    assert curves(store, "steps", tasks=["static/other"]) == curves(store, "steps", suites=["events"]) == []


def test_the_legend_says_seeds_slope_exponent_and_verdict(store, add, tmp_path):
    for steps in (2, 4, 8):
        add(3.0 * steps, **{"settings.steps": steps})
        add(5.0, **{"settings.steps": steps, "spec.method": "flat $x_{"})
        add(7.0 * steps**2, **{"settings.steps": steps, "spec.method": "square"})
    ((found,), _) = grown(store, ("steps",), [SAVED])
    figure = growth(found)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        r"flat \$x_{ (n = 1): constant, 0 per step, exponent 0.00",
        "square (n = 1): neither linear nor constant, 72 per step, exponent 2.00",
        "stbp (n = 1): linear, 3 per step, exponent 1.00",
    ]
    assert (
        " ".join(figure.get_suptitle().split())
        == "static/digits over steps, smoke budget, matched track, on Some CPU (cpu, fp32, threads 1)"
    )
    assert save(figure, tmp_path / "plot", ("svg", "png"))[1].read_bytes()[:4] == b"\x89PNG"


def test_the_command_draws_a_figure_per_axis(command, store, add, tmp_path):
    for steps in (2, 4):
        add(**{"settings.steps": steps})
        add(**{"settings.backbone": {"depth": steps}})
    given = ("plot", "scaling", "--metrics", "spikes", "--results", store.folder, "-o", tmp_path / "plots", "-f", "svg")
    assert [line.split("/")[-1].split("-")[1] for line in command(*given).out.split()] == ["steps", "depth"]
    assert len(command(*given, "--over", "depth").out.split()) == 1
    refused = command(*given, "--over", "stepz")
    assert refused.status == 2 and "cannot scale over 'stepz'; did you mean 'steps'?" in refused.err
    assert "none has what this plot shows" in command(*given, "--over", "length").err
