import csv
import io

import pytest

from harness.registry import Registries
from harness.report.probes import build, render
from harness.store import Store

PROBE = """
from harness.plugin import ProbeCard
from harness.probe import Probe


class Sizes(Probe):
    card = ProbeCard(name="sizes", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")
    headings = {"drop": "drop [points]"}

    def measure(self, method, net):
        return {}

    @classmethod
    def rows(cls, figures):
        return [{"size": size, "drop": drop} for size, drop in figures["drops"].items()]
"""


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "records")
    store.prepare()
    return store


@pytest.fixture
def put(store, make_record):
    """Add a record with a key of its own."""
    keys = iter(range(1000))

    def write(probes, label="stbp", seed=0):
        store.write(make_record(key=f"{next(keys):04x}", label=label, probes=probes, **{"spec.seed": seed}))

    return write


@pytest.fixture
def registries(plugin_file):
    return Registries([plugin_file(PROBE, "sizes.py")])


def test_numbers_are_averaged_over_seeds_and_texts_tell_rows_apart(put, store, registries):
    put({"sizes": {"drops": {"16": 1.0, "64": 4.0}}})
    put({"sizes": {"drops": {"16": 3.0, "64": None}}}, seed=1)
    (table,) = build(store, registries)
    assert [(line.label, line.about, line.figures, line.runs) for line in table.lines] == [
        ("stbp", {"size": "16"}, {"drop": [1.0, 3.0]}, 2),
        ("stbp", {"size": "64"}, {"drop": [4.0]}, 2),
    ]
    text = table.render("github")
    assert "drop [points]" in text and "2 ± 1.4" in text


def test_options_make_tables_of_their_own_and_a_bare_name_shows_all(put, store, registries):
    put({"sizes": {"drops": {"16": 1.0}}, "sizes[variation=0.1]": {"drops": {"16": 2.0}}})
    assert [table.probe for table in build(store, registries, probe="sizes")] == ["sizes", "sizes[variation=0.1]"]
    assert [table.probe for table in build(store, registries, probe="sizes[variation=0.1]")] == ["sizes[variation=0.1]"]


def test_a_probe_that_is_not_here_shows_its_plain_numbers(put, store, registries):
    put({"gone": {"energy": 2.5, "layers": [1, 2], "unit": "pJ"}})
    (table,) = build(store, registries)
    assert [line.figures for line in table.lines] == [{"energy": [2.5]}]


def test_a_method_that_a_probe_cannot_look_at_has_its_reason_below(put, store, registries):
    put({"sizes": {"drops": {"16": 1.0}}})
    put({"sizes": {"cannot": "it has no weights"}}, label="ann")
    (table,) = build(store, registries)
    assert [line.label for line in table.lines] == ["stbp"]
    assert "ann: it has no weights" in table.render("terminal")


def test_csv_has_means_and_deviations(put, store, registries):
    put({"sizes": {"drops": {"16": 1.0}}})
    put({"sizes": {"drops": {"16": 3.0}}}, seed=1)
    heads, row = csv.reader(io.StringIO(render(build(store, registries), "csv")))
    found = dict(zip(heads, row, strict=True))
    assert (found["probe"], found["size"], found["n"]) == ("sizes", "16", "2")
    assert float(found["drop"]) == 2.0 and float(found["drop_std"]) == pytest.approx(2**0.5)


@pytest.mark.parametrize("style", ["terminal", "github", "latex", "html"])
def test_every_format_shows_the_figures(put, store, registries, style):
    put({"sizes": {"drops": {"16": 1.25}}})
    assert "1.25" in render(build(store, registries), style)
