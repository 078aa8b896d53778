"""The same numbers in every format: each is read back and compared with the others and with the records' own figures."""

import csv
import io
import json
import re
import statistics
import tempfile
from html.parser import HTMLParser

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.metrics import as_task_metric, format_value, metric, scale_for
from harness.report.table import build, render
from harness.store import Store

METRICS = ("test_accuracy", "spikes", "step_time")


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.rows = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data.strip()


def read(text, style):
    """Return the rows of one table as lists of cells, headings left out."""
    if style == "github":
        return Cells(MarkdownIt("commonmark").enable("table").render(text)).rows[1:]
    if style == "html":
        return Cells(text).rows[1:]
    if style == "latex":
        body = text.split("\\midrule\n")[1].split("\n\\bottomrule")[0]
        rows = [line.removesuffix(r" \\").split(" & ") for line in body.splitlines()]
        return [[cell.replace(r"$\pm$", "±").replace(r"\_", "_").replace(r"$\surd$", "✓").strip() for cell in row] for row in rows]
    body = re.split(r"─+\n", text)[1]
    return [re.split(r" {2,}", line.strip()) for line in body.splitlines() if not line.startswith("  ")]


FIGURES = st.tuples(st.floats(0, 1), st.floats(1e-3, 1e9), st.floats(1e-7, 1e4))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(FIGURES, min_size=1, max_size=3), min_size=1, max_size=4))
def test_every_format_shows_the_figures_of_the_records(make_record, methods):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.prepare()
        for place, runs in enumerate(methods):
            for seed, (accuracy, spikes, step) in enumerate(runs):
                plain = json.loads(make_record(key=f"{place:x}{seed:x}", label=f"method_{place}", **{"spec.seed": seed}).model_dump_json())
                plain["accuracy"]["test"], plain["activity"]["spikes_per_sample"], plain["time"] = accuracy, spikes, {"step_median": step}
                store.path(plain["key"]).write_text(json.dumps(plain))
        (table,), broken = build(store, metrics=METRICS)
    assert broken == []
    expected = {f"method_{place}": list(zip(*runs, strict=True)) for place, runs in enumerate(methods)}
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(render([table], "csv")))}
    assert lines.keys() == expected.keys()
    for label, figures in expected.items():
        for name, values in zip(METRICS, figures, strict=True):
            assert float(lines[label][name]) == statistics.fmean(values)
            assert lines[label][f"{name}_std"] == (str(statistics.stdev(values)) if len(values) > 1 else "")
    shown = {style: read(table.render(style), style) for style in ("terminal", "github", "latex", "html")}
    assert shown["terminal"] == shown["github"] == shown["latex"] == shown["html"]
    for row in shown["github"]:
        texts = []
        for place, m in enumerate(as_task_metric(metric(name), "accuracy") for name in METRICS):
            scale = scale_for(m, [statistics.fmean(figures[place]) for figures in expected.values()])
            values = expected[row[0]][place]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            texts.append(format_value(m, statistics.fmean(values), deviation, scale=scale).removesuffix(f" {scale.unit}").strip())
        assert row[:2] == [row[0], str(len(methods[int(row[0][-1])]))] and row[3:] == texts
