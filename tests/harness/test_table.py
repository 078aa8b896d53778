"""Tables of records: right numbers, nothing mixed, nothing hidden, in every format."""

import csv
import json
import math
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.plugin import UsageError
from harness.record import encode_bits
from harness.report.table import FORMATS, Row, build, render
from harness.statistics import p_value
from harness.store import Store

METRICS = ("test_accuracy", "saved_bytes", "step_time")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    return store


@pytest.fixture
def add(store, make_record):
    """Add a record with a key of its own."""
    count = iter(range(1000))

    def write(label="stbp", seed=0, accuracy=0.5, **changes):
        changes = {"label": label, "spec.seed": seed, **changes}
        if changes.get("status", "ok") == "ok":
            changes["accuracy.test"] = accuracy
        else:
            changes["accuracy"] = None
        return store.write(make_record(key=f"{next(count):04x}", **changes))

    return write


def only(store, **given):
    (table,), broken = build(store, **{"metrics": METRICS, **given})
    assert broken == []
    return table


def test_a_cell_is_mean_and_standard_deviation_over_seeds(store, add):
    values = [0.90, 0.92, 0.97]
    for seed, value in enumerate(values):
        add(seed=seed, accuracy=value)
    (row,) = only(store).rows
    mean = (0.90 + 0.92 + 0.97) / 3
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 2)
    assert row.mean("test_accuracy") == pytest.approx(mean)
    assert row.deviation("test_accuracy") == pytest.approx(deviation)
    heads, ((label, n, _, cell, *_),) = only(store).cells()
    assert (label, n, cell) == ("stbp", "3", "93.00 ± 3.61")
    assert heads[:4] == ["method", "n", "rank", "accuracy [%] ↑"]


def test_a_cell_may_show_the_interval_of_the_mean_instead(store, add):
    for seed, value in enumerate([0.90, 0.92, 0.97]):
        add(seed=seed, accuracy=value)
    add("once", accuracy=0.5)
    table = only(store, spread="interval")
    low, high = table.rows[0].interval("test_accuracy")
    assert 0.9 - 1e-9 <= low < 0.93 < high <= 0.97 + 1e-9
    (three, one) = (cells[3] for cells in table.cells()[1])
    assert (three, one) == (f"93.00 [{100 * low:.2f}, {100 * high:.2f}]", "50.00")


def test_one_seed_has_no_deviation(store, add):
    add(accuracy=0.9)
    _, ((_, n, _, cell, *_),) = only(store).cells()
    assert (n, cell) == ("1", "90.00")


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_mean_and_deviation_are_those_of_the_textbook(values):
    row = Row("x", [{"a": value} for value in values])
    mean = sum(values) / len(values)
    assert row.mean("a") == pytest.approx(mean)
    assert row.deviation("a") == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)), abs=1e-9)


def test_a_seed_without_a_value_makes_the_mean_missing(store, add):
    memory = {"parameter_count": 1, "parameter_bytes": 1, "optimizer_bytes": 0, "saved_bytes": 2048, "transient_bytes": None}
    memory |= {"peak_rss_growth_bytes": None, "cuda_peak_bytes": None, "phases": []}
    add(seed=0, memory=memory)
    add(seed=1)
    table = only(store)
    assert table.rows[0].mean("saved_bytes") is None
    assert table.cells()[1][0] == ["stbp", "2", "1", "50.00 ± 0.00", "-", "-"]


def test_a_figure_that_is_not_finite_is_a_dash_and_comes_last(store, add):
    add("a", accuracy=math.nan)
    add("b", accuracy=0.1)
    add("c", accuracy=math.inf)
    assert [(line[0], line[3]) for line in only(store).cells()[1]] == [("b", "10.00"), ("a", "-"), ("c", "-")]


def test_rows_are_sorted_best_first_and_those_without_a_value_come_last(store, add):
    for label, accuracy in (("low", 0.2), ("high", 0.8), ("middle", 0.5)):
        add(label, accuracy=accuracy, **{"activity.spikes_per_sample": accuracy})
    add("failed", status="error")
    assert [row.label for row in only(store).rows] == ["high", "middle", "low", "failed"]
    assert [row.label for row in only(store, sort="spikes").rows] == ["low", "middle", "high", "failed"]


def test_a_metric_to_sort_by_need_not_be_a_column(store, add):
    add(**{"activity.spikes_per_sample": 3.0})
    assert [m.name for m in only(store, sort="spikes").metrics] == list(METRICS)


def test_an_unknown_metric_names_the_nearest(store, add):
    add()
    with pytest.raises(UsageError, match="there is no metric 'spike'; did you mean 'spikes'?"):
        build(store, metrics=("spike",))


def test_a_column_has_one_unit(store, add):
    add("few", **{"activity.spikes_per_sample": 50.0})
    add("many", **{"activity.spikes_per_sample": 5000.0})
    heads, lines = only(store, metrics=("spikes",)).cells()
    assert heads[3] == "spikes [k] ↓"
    assert {line[0]: float(line[3]) for line in lines} == {"few": 0.05, "many": 5.0}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("environment.device", "Another CPU"),
        ("environment.device_kind", "cuda"),
        ("spec.track", "recipe"),
        ("spec.budget", "paper"),
        ("spec.precision", "bf16"),
        ("spec.threads", 4),
        ("spec.task", "static/other"),
    ],
)
def test_what_cannot_be_compared_is_never_in_one_table(store, add, name, other):
    add("a")
    add("b", **{name: other})
    tables, _ = build(store, metrics=METRICS)
    assert sorted([row.label for row in table.rows] for table in tables) == [["a"], ["b"]]
    assert len({table.title for table in tables}) == 2


def test_failures_are_shown_with_their_kind_and_do_not_count(store, add):
    add(seed=0, accuracy=0.9)
    add(seed=1, status="diverged")
    add(seed=2, status="diverged")
    add(seed=3, status="timeout")
    table = only(store)
    assert table.cells()[1][0][:4] == ["stbp", "1", "1", "90.00"]
    assert table.notes() == [
        "stbp: 2 run(s) diverged (the loss was not a finite number)",
        "stbp: 1 run(s) timeout (the time limit ran out)",
    ]
    assert all(note in table.render() for note in table.notes())


def test_a_run_that_died_before_it_named_its_device_joins_the_table_of_its_task(store, add):
    add("fine")
    add("dead", status="killed", environment=None)
    (table,), _ = build(store)
    assert [row.label for row in table.rows] == ["fine", "dead"]


def test_a_failure_on_another_machine_stays_in_a_table_of_that_machine(store, add):
    add("fine")
    add("dead", status="error", **{"environment.device": "Another CPU"})
    tables, _ = build(store)
    assert sorted((table.about["device"], [row.label for row in table.rows]) for table in tables) == [
        ("Another CPU", ["dead"]),
        ("Some CPU", ["fine"]),
    ]


def test_failures_alone_make_a_table(store, add):
    add(status="killed", environment=None, **{"spec.device": "cuda:1"})
    table = only(store)
    assert "on cuda:1 (cuda, fp32, threads 1)" in table.title
    assert table.cells()[1] == [["stbp", "0", "-", "-", "-", "-"]]


def test_what_a_method_cannot_do_is_said(store, add):
    add()
    reasons = {("static/digits", "blind"): "it has no eyes", ("static/other", "deaf"): "it has no ears"}
    assert only(store, reasons=reasons).notes() == ["blind: cannot run here: it has no eyes"]


def test_the_latest_record_of_a_seed_counts(store, add):
    add(accuracy=0.9, started="2026-01-03T00:00:00+00:00")
    add(accuracy=0.1, started="2026-01-02T00:00:00+00:00")
    table = only(store)
    assert table.rows[0].mean("test_accuracy") == 0.9 and len(table.rows[0].runs) == 1


def test_a_later_success_hides_an_earlier_failure_of_the_seed(store, add):
    add(status="error", started="2026-01-01T00:00:00+00:00")
    add(started="2026-01-02T00:00:00+00:00")
    assert only(store).notes() == []


def test_records_of_older_code_or_other_settings_never_share_a_row(store, add):
    for seed in range(3):
        add(seed=seed, accuracy=0.1, started="2026-01-01T00:00:00+00:00", **{"settings.code_hash": "old"})
    add(seed=0, accuracy=0.9, started="2026-01-02T00:00:00+00:00", **{"settings.code_hash": "new"})
    (row,) = only(store).rows
    assert [run["test_accuracy"] for run in row.runs] == [0.9]


def test_another_time_limit_is_not_another_setting(store, add):
    add(seed=0, **{"settings.time_limit": 10.0})
    add(seed=1, **{"settings.time_limit": 20.0})
    assert len(only(store).rows[0].runs) == 2


def test_tables_can_be_narrowed(store, add):
    add("a")
    add("b[x=1]", **{"spec.method": "b"})
    add("c", **{"spec.task": "events/other"})

    def labels(**given):
        return sorted(row.label for table in build(store, **given)[0] for row in table.rows)

    assert labels() == ["a", "b[x=1]", "c"]
    assert labels(methods=["b"]) == labels(methods=["b[x=1]"]) == ["b[x=1]"]
    assert labels(tasks=["events/other"]) == labels(suites=["events"]) == ["c"]
    assert labels(keys={"0000"}) == ["a"]
    assert labels(methods=["nothing"]) == []


def test_unreadable_files_are_named_and_the_others_shown(store, add):
    add()
    (store.folder / "cut.json").write_text('{"schema_version": 1, "key"')
    tables, broken = build(store)
    assert (len(tables), broken) == (1, ["cut.json"])


HOSTILE = 'x[a=<script>alert("1")</script>,b=50%&|_#$]'


@pytest.fixture
def table(store, add):
    add(HOSTILE, seed=0, accuracy=0.9)
    add(HOSTILE, seed=1, accuracy=0.8)
    add("ottt[update=online]", accuracy=0.7, **{"activity.spikes_per_sample": 1e6})
    add("dead_one", status="error")
    return only(store, metrics=("test_accuracy", "spikes"), reasons={("static/digits", "blind"): "needs 50% & <more>"})


def test_rows_are_compared_with_the_one_that_is_asked_for(store, add):
    for seed, more in enumerate((0, 1, 2)):
        bits = encode_bits([True] * (40 + more) + [False] * (10 - more))
        add("base", seed, 0.60 + more / 100, **{"accuracy.correct": encode_bits([False] * 20 + [True] * 30), "accuracy.items": 50})
        add("better", seed, 0.80 + more / 50, **{"accuracy.correct": bits, "accuracy.items": 50})
    table = only(store, against="base")
    heads, (better, base) = table.cells()
    assert heads[-1] == "accuracy, difference to"
    assert base[-1] == "-" and better[-1].startswith("base: +21.00 points (p = 0.0")
    assert table.rows[0].p == pytest.approx(p_value(table.rows[0].found, table.rows[1].found))
    line = next(csv.DictReader(render([table], "csv").splitlines()))
    assert line["against"] == "base" and float(line["p"]) == table.rows[0].p
    assert only(store, against="nobody").cells()[0] == only(store).cells()[0]


def test_every_format_shows_every_method(table):
    for style in FORMATS:
        text = render([table], style)
        assert "dead" in text and ("0.85" if style == "csv" else "85.00") in text


def test_csv_is_one_table_in_the_units_of_the_metrics(table):
    lines = list(csv.DictReader(render([table, table], "csv").splitlines()))
    assert [line["method"] for line in lines] == [HOSTILE, "ottt[update=online]", "dead_one"] * 2
    first = lines[0]
    assert (first["task"], first["device"], first["kind"], first["n"], first["failed"]) == ("static/digits", "Some CPU", "cpu", "2", "0")
    assert float(first["test_accuracy"]) == pytest.approx(0.85)
    assert float(first["test_accuracy_std"]) == pytest.approx(0.1 / 2**0.5)
    assert "test_accuracy_low" not in first
    assert lines[1]["test_accuracy_std"] == "" and float(lines[1]["spikes"]) == 1e6
    assert (lines[2]["n"], lines[2]["failed"], lines[2]["test_accuracy"]) == ("0", "1", "")


def test_csv_has_the_ends_of_intervals_where_these_are_asked_for(store, add):
    for seed, value in enumerate([0.90, 0.92, 0.97]):
        add(seed=seed, accuracy=value)
    add("twice", seed=0), add("twice", seed=1)
    three, two = csv.DictReader(render([only(store, spread="interval")], "csv").splitlines())
    assert 0.9 - 1e-9 <= float(three["test_accuracy_low"]) < 0.93 < float(three["test_accuracy_high"]) <= 0.97 + 1e-9
    assert two["test_accuracy_low"] == two["test_accuracy_high"] == ""  # two seeds make no interval


def test_html_escapes_everything(table):
    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.text = set(), []

        def handle_starttag(self, tag, attributes):
            self.tags.add(tag)

        def handle_data(self, data):
            self.text.append(data.strip())

    reader = Reader()
    reader.feed(table.render("html"))
    assert reader.tags <= {"h3", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert HOSTILE in reader.text
    assert "blind: cannot run here: needs 50% & <more>" in reader.text


def test_latex_has_no_bare_special_characters(table):
    lines = [line for line in table.render("latex").splitlines() if not line.startswith("%")]
    text = "\n".join(lines)
    assert r"ottt[update=online]" in text and r"dead\_one" in text
    assert all(line.isascii() for line in lines)
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 4
    for row in rows:
        bare = row.removesuffix(r"\\").replace(r"\$", "").replace(r"\_", "").replace(r"\%", "").replace(r"\#", "").replace(r"\&", "")
        assert bare.count("&") == 4
        assert bare.count("$") % 2 == 0
        assert not set("%#_") & set(bare)


def test_comments_of_latex_stay_on_their_line(store, add):
    add()
    table = only(store, reasons={("static/digits", "blind"): "first line\n\\input{second}"})
    body = [line for line in table.render("latex").splitlines() if not line.startswith("%")]
    assert not any("second" in line for line in body)


def test_github_keeps_bars_of_labels_inside_their_cell(table):
    rows = [line for line in table.render("github").splitlines() if line.startswith("|")]
    assert {row.replace(r"\|", "").count("|") for row in rows} == {6}


MEMORY = {"parameter_count": 1, "parameter_bytes": 1, "optimizer_bytes": 0, "transient_bytes": None, "phases": []}
MEMORY |= {"peak_rss_growth_bytes": None, "cuda_peak_bytes": None}


def costing(add, *given):
    for label, accuracy, saved, spikes in given:
        add(label, accuracy=accuracy, memory={**MEMORY, "saved_bytes": saved}, **{"activity.spikes_per_sample": spikes})


def test_rows_that_no_other_beats_in_accuracy_and_memory_are_marked(store, add):
    costing(add, ("good", 0.9, 30, 1.0), ("small", 0.5, 10, 1.0), ("beaten", 0.5, 20, 1.0), ("same", 0.5, 10, 9.0))
    table = only(store)
    assert {row.label: row.optimal for row in table.rows} == {"good": True, "small": True, "beaten": False, "same": True}
    heads, lines = table.cells()
    assert heads[3] == "Pareto" and {line[0]: line[3] for line in lines} == {"good": "*", "small": "*", "beaten": "", "same": "*"}
    assert "Pareto *: no other row is at least as good in accuracy and saved for backward, and better in one" in table.render()


def test_several_costs_decide_together_and_those_without_a_figure_stay_out(store, add):
    costing(add, ("good", 0.9, 30, 2.0), ("few", 0.5, 40, 1.0), ("beaten", 0.5, 40, 3.0))
    add("unmeasured", accuracy=0.99)
    table = only(store, pareto=("saved_bytes", "spikes"))
    assert {row.label: row.optimal for row in table.rows} == {"good": True, "few": True, "beaten": False, "unmeasured": None}
    lines = csv.DictReader(render([table], "csv").splitlines())
    assert {line["method"]: line["pareto"] for line in lines} == {"good": "true", "few": "true", "beaten": "false", "unmeasured": ""}


def test_no_row_is_marked_without_a_cost_or_without_a_second_row(store, add):
    costing(add, ("one", 0.9, 30, 2.0))
    assert "Pareto" not in only(store).cells()[0] and only(store).legend() == []
    costing(add, ("two", 0.9, 30, 2.0))
    assert "Pareto" in only(store).cells()[0] and "Pareto" not in only(store, pareto=()).cells()[0]


def test_a_row_is_verified_if_every_record_of_it_is(store, add):
    first, second, other = add(seed=0), add(seed=1), add("other")
    table = only(store, verified={first.stem, second.stem})
    assert {row.label: row.verified for row in table.rows} == {"stbp": True, "other": False}
    assert {line[0] for line in table.cells()[1]} == {"stbp ✓", "other"} and "✓: every record" in table.render()
    assert r"stbp $\surd$ &" in table.render("latex")
    lines = csv.DictReader(render([table], "csv").splitlines())
    assert {line["method"]: line["verified"] for line in lines} == {"stbp": "true", "other": "false"}
    half = only(store, verified={first.stem, other.stem})
    assert {row.label: row.verified for row in half.rows} == {"stbp": False, "other": True}


@pytest.mark.parametrize(
    "wrong", [{"accuracy.test": "high"}, {"accuracy.correct": "xyz"}, {"spec.budget": {"a": 1}}, {"environment.device": ["CPU"]}]
)
def test_a_file_with_something_else_where_a_figure_should_be_is_named_as_broken(store, add, wrong):
    add("fine")
    path = add("odd")
    plain = json.loads(path.read_text())
    for name, value in wrong.items():
        part, _, last = name.partition(".")
        plain[part][last] = value
    path.write_text(json.dumps(plain))
    (table,), broken = build(store)
    assert ([row.label for row in table.rows], broken) == (["fine"], [path.name])


def test_metrics_that_only_some_tasks_have_are_columns_and_sort(store, add):
    for label, value in (("low", 0.1), ("high", 0.9)):
        add(label, **{"accuracy.metric": "map_50", "accuracy.test_metrics": {"map_50": 0.5, "map": value}})
    add("none")
    table = only(store, metrics=("map",), sort="map")
    assert table.cells()[0][3] == "mAP@[.5:.95] [%] ↑"
    assert [(line[0], line[3]) for line in table.cells()[1]] == [("high", "90.00"), ("low", "10.00"), ("none", "-")]


def test_headings_say_which_direction_is_better(store, add):
    add(**{"accuracy.metric": "map_50"})
    heads, _ = only(store).cells()
    assert heads[3:] == ["mAP@.5 [%] ↑", "saved for backward [B] ↓", "step time [µs] ↓"]


def test_methods_that_cannot_be_told_apart_share_a_rank(store, add):
    good, other, bad = [True] * 180 + [False] * 20, [False] * 18 + [True] * 182, [True] * 100 + [False] * 100
    for label, bits in (("good", good), ("other", other), ("bad", bad)):
        answers = {"accuracy.correct": encode_bits(bits), "accuracy.items": len(bits)}
        add(label, accuracy=sum(bits) / len(bits), **answers)
    assert {row.label: row.rank for row in only(store).rows} == {"good": 1, "other": 1, "bad": 3}


def test_less_is_better_for_an_error(store, add):
    for label, value in (("low", 0.1), ("high", 0.2)):
        for seed in range(3):
            add(label, seed=seed, accuracy=value + seed / 1000, **{"accuracy.metric": "mse"})
    table = only(store)
    assert [(row.label, row.rank) for row in table.rows] == [("low", 1), ("high", 2)]
    assert table.cells()[0][3] == "MSE ↓"


def test_each_row_is_compared_with_its_own_baseline_and_figures_stand_as_ratios(store, add):
    add("one", accuracy=0.7, **{"activity.spikes_per_sample": 50.0})
    add("one[plain=true]", accuracy=0.6, **{"activity.spikes_per_sample": 200.0})
    add("two", accuracy=0.5, **{"activity.spikes_per_sample": 10.0})
    own = {"one": "one[plain=true]", "two": "not run", "one[plain=true]": "one[plain=true]"}
    _, (one, plain, two) = only(store, against=own, metrics=("test_accuracy", "spikes")).cells()
    assert one[-2].endswith("(0.25x)") and "x" not in one[-3] + plain[-2] + two[-2]
    assert [one[-1].split(" (")[0], plain[-1], two[-1]] == ["one[plain=true]: +10.00 points", "-", "-"]
