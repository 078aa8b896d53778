import itertools
import random

import pytest

from harness.metrics import metric
from harness.report.plot import CURVES, against, file_name, front, over_steps, save, training
from harness.report.table import build
from harness.store import Store

EPOCH = {"phase": "train", "loss": 1.0, "seconds": 1.0, "batches": 1, "samples": 2, "loading": 0.0}


@pytest.fixture
def table(tmp_path, make_record):
    store = Store(tmp_path / "records")
    store.prepare()
    rows = [("stbp", 0, [0.2, 0.6], 100.0), ("stbp", 1, [0.4, 0.8], 300.0), ("ann", 0, [0.9], 1000.0), ("bad $x_{", 0, [0.1, 0.1], 500.0)]
    for number, (label, seed, curve, spikes) in enumerate(rows):
        changes = {
            "label": label,
            "spec.seed": seed,
            "accuracy.test_curve": curve,
            "accuracy.test": curve[-1],
            "activity.spikes_per_sample": spikes,
            "trace": [{**EPOCH, "epoch": epoch, "validation": value} for epoch, value in enumerate((0.1, curve[-1]))],
        }
        store.write(make_record(key=f"{number:04x}", **changes))
    ((table,), _) = build(store, metrics=("test_accuracy", "spikes"), extra=CURVES)
    return table


def lines(figure):
    return {line.get_label().split(" (")[0]: line for line in figure.axes[0].get_lines()}


def test_accuracy_over_steps_shows_the_means_and_a_level_for_what_needs_one_step(table):
    figure = over_steps(table)
    found = lines(figure)
    assert list(found["stbp"].get_xdata()) == [1, 2] and list(found["stbp"].get_ydata()) == pytest.approx([30, 70])
    assert list(found["ann"].get_ydata()) == [90, 90]
    assert "static/digits" in figure.get_suptitle() and "n = 2" in found["stbp"].get_label()


def test_accuracy_against_a_cost_marks_what_no_other_beats(table):
    figure = against(table, metric("spikes"))
    (edge,) = [line for line in figure.axes[0].get_lines() if line.get_label() == "Pareto front"]
    assert list(edge.get_xdata()) == pytest.approx([200 / 1000, 1.0]) and list(edge.get_ydata()) == pytest.approx([70, 90])


def test_training_curves_are_means_over_seeds(table):
    assert list(lines(training(table))["stbp"].get_ydata()) == pytest.approx([10, 70])


@pytest.mark.parametrize(("higher", "lower_cost"), itertools.product((True, False), repeat=2))
def test_the_front_is_what_the_definition_says(higher, lower_cost):
    source = random.Random(0)
    points = [(float(source.randrange(6)), float(source.randrange(6))) for _ in range(30)]
    cost = [x if lower_cost else -x for x, _ in points]
    gain = [y if higher else -y for _, y in points]

    def dominated(i):
        others = zip(cost, gain, strict=True)
        return any(c <= cost[i] and g >= gain[i] and (c < cost[i] or g > gain[i]) for c, g in others)

    assert front(points, higher, lower_cost) == [i for i in range(len(points)) if not dominated(i)]


@pytest.mark.parametrize("draw", [over_steps, training, lambda table: against(table, metric("spikes"))])
def test_a_hostile_name_is_drawn_as_it_is_and_files_are_the_same_every_time(table, tmp_path, draw):
    first, second = (save(draw(table), tmp_path / folder / file_name("any", table.about), ("svg", "png")) for folder in ("a", "b"))
    assert [file.suffix for file in first] == [".svg", ".png"]
    assert first[0].read_bytes() == second[0].read_bytes() and first[1].read_bytes()[:4] == b"\x89PNG"


def test_nothing_to_draw_is_none(table):
    table.rows = []
    assert over_steps(table) is None and training(table) is None and against(table, metric("spikes")) is None


def test_the_command_prints_the_files_it_wrote(command, tmp_path, table):
    done = command("plot", "steps", "--results", str(tmp_path / "records"), "-o", str(tmp_path / "plots"), "-f", "svg")
    (file,) = (tmp_path / "plots").iterdir()
    assert done.status == 0 and done.out.split() == [str(file)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("stepz",), "unknown plot 'stepz'"),
        (("steps", "-f", "gif"), "unknown format 'gif'"),
        (("pareto", "--against", "spike"), "there is no metric 'spike'"),
        (("steps", "-m", "nothing"), "unknown method 'nothing'"),
        (("steps", "-m", "ottt"), "no record"),
    ],
)
def test_wrong_input_is_refused_in_one_line(command, tmp_path, table, given, message):
    done = command("plot", *given, "--results", str(tmp_path / "records"), "-o", str(tmp_path / "plots"))
    assert done.status == 2 and message in done.err
