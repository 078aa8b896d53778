"""The site's pages without a browser: what is written, that texts of records stay texts, and that a folder is safe."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.plugin import Claim, UsageError
from harness.registry import Registries
from harness.report import claims, table
from harness.report.claims import Finding
from harness.report.site import assets, growth, packed, statements
from harness.report.site.folder import MARKER, replaced
from harness.report.site.leaderboard import grid
from harness.report.site.links import file_names
from harness.report.site.runs import POINTS, every, read, thinned
from harness.report.site.write import write
from harness.store import Store

HOSTILE = "<script>window.hacked = 1</script>'\"</script><img src=x onerror=window.hacked=1>{{7*7}}\u2028&amp;"


@pytest.fixture(scope="module")
def registries():
    return Registries()


@pytest.fixture
def store(tmp_path, make_record):
    """Two methods with three seeds each, a run that failed, and one whose texts are out to do harm."""
    store = Store(tmp_path / "records", deep=True)
    store.prepare()
    for place, (label, base) in enumerate((("stbp", 0.9), ("ottt", 0.5))):
        for seed in range(3):
            changes = {"spec.method": label, "label": label, "spec.seed": seed, "accuracy.test": base + seed / 100}
            memory = {"parameter_count": 10, "parameter_bytes": 40, "optimizer_bytes": 80, "transient_bytes": None, "phases": []}
            memory |= {"saved_bytes": 1000 * (place + 1), "peak_rss_growth_bytes": None, "cuda_peak_bytes": None}
            store.write(make_record(key=f"{place}{seed}", memory=memory, **changes))
    failure = {"message": HOSTILE, "traceback": HOSTILE}
    store.write(make_record(key="f0", label="tcl", status="error", failure=failure, accuracy=None, **{"spec.method": "tcl"}))
    texts = {"label": HOSTILE, "spec.method": HOSTILE, "spec.task": f"static/{HOSTILE}", "environment.device": HOSTILE}
    store.write(make_record(key="bad0", warnings=[HOSTILE], report={HOSTILE: HOSTILE}, **texts))
    return store


class Parsed(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def _data(site: Path, name: str):
    packed_text = re.fullmatch(r'spikebench\.receive\("[^"]+","([^"]+)"\);\n', (site / "data" / f"{name}.js").read_text())[1]
    return json.loads(gzip.decompress(base64.b64decode(packed_text)))


@pytest.fixture
def site(store, registries, tmp_path):
    write(store, registries, tmp_path / "site")
    return tmp_path / "site"


def test_every_kind_of_page_is_there_and_every_link_between_pages_leads_to_one(site):
    pages = [path for path in site.rglob("*.html")]
    assert {"index", "methods", "claims", "scaling", "history", "runs", "run"} <= {page.stem for page in pages if page.parent == site}
    assert (site / "tasks" / "static-digits.html").is_file() and (site / "methods" / "ottt.html").is_file()
    for page in pages:
        for _, attributes in Parsed(page).elements:
            for link in (attributes.get("href"), attributes.get("src")):
                if link and not link.startswith("#"):
                    assert (page.parent / link.partition("#")[0]).is_file(), f"{page.name}: {link}"


def test_pages_ask_for_nothing_beyond_their_folder_and_forbid_scripts_that_are_not_files_of_theirs(site):
    for page in site.rglob("*.html"):
        elements = Parsed(page).elements
        policy = next(a["content"] for tag, a in elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
        assert "default-src 'none'" in policy and "script-src 'self' file:;" in policy
        assert all(a.get("src") or a.get("type") == "application/json" for tag, a in elements if tag == "script")
        assert not any(value and "//" in value for _, a in elements for name, value in a.items() if name in ("src", "href"))


def test_texts_of_records_never_become_elements(site):
    told = 0
    for page in site.rglob("*.html"):
        parsed = Parsed(page)
        assert "img" not in {tag for tag, _ in parsed.elements}
        assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
        told += "window.hacked" in parsed.text
        assert "49" not in re.findall(r"onerror=window\.hacked=1>(\S{0,7})", parsed.text)
    assert told >= 3  # index, its task, its method


def test_a_json_block_cannot_be_left_and_reads_as_what_was_put_in():
    block = packed.as_block({"a": HOSTILE, "b": float("nan")})
    assert not set("<>&\u2028") & set(block)
    assert json.loads(block) == {"a": HOSTILE, "b": "NaN"}


def test_cells_have_the_texts_of_the_command_line_and_sort_by_the_digits_of_the_csv(store):
    tables, _ = table.build(store, tasks=["static/digits"])
    shown = grid(tables[0], {}, {}, "")
    _, lines = tables[0].cells()
    rows = list(csv.DictReader(io.StringIO(table.render(tables, "csv"))))
    place = 3 + tables[0].contested
    for cells, line, row in zip(shown.lines, lines, rows, strict=True):
        assert [f"{cell.text} {cell.beside}".strip() for cell in cells[4:]] == line[place:]
        for cell, metric in zip(cells[4:], tables[0].metrics, strict=True):
            assert cell.order == row[metric.name]


def test_the_data_of_a_run_hold_its_record_under_the_place_that_the_list_says(site, store):
    listed = _data(site, "runs")
    keys = [row[listed["columns"].index("key")] for row in listed["rows"]]
    assert sorted(keys) == ["00", "01", "02", "10", "11", "12", "bad0", "f0"]
    shard = _data(site, "records-000")
    for place, key in enumerate(keys):
        record = json.loads(store.path(key).read_text())
        assert shard["label"][place] == record["label"] and shard["settings"][place] == record["settings"]
        assert (shard["accuracy"][place] or {}).get("test") == (record["accuracy"] or {}).get("test")


def test_the_same_records_give_the_same_bytes(store, registries, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(store, registries, first)
    write(store, registries, second)
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_an_earlier_site_is_replaced_and_a_folder_of_anything_else_is_refused(tmp_path):
    with replaced(tmp_path / "site") as folder:
        (folder / "old.html").write_text("old")
    with replaced(tmp_path / "site") as folder:
        (folder / "new.html").write_text("new")
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == sorted([MARKER, "new.html"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match="mine is not empty and holds no earlier site"), replaced(tmp_path / "mine"):
        pass
    with pytest.raises(UsageError, match="thesis.tex is a file"), replaced(tmp_path / "mine" / "thesis.tex"):
        pass


def test_a_site_that_is_interrupted_leaves_the_earlier_one_and_nothing_beside_it(tmp_path):
    with replaced(tmp_path / "site") as folder:
        (folder / "index.html").write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced(tmp_path / "site") as folder:
        (folder / "index.html").write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "site" / "index.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_the_command_names_the_page_and_exits_with_2_where_a_file_is_no_record(store, command, tmp_path):
    good = command("site", "--results", store.folder, "-o", tmp_path / "a")
    assert good.status == 0 and good.out.startswith(f"{tmp_path / 'a' / 'index.html'}: 8 runs")
    (store.folder / "torn.json").write_text('{"key": "ab')
    torn = command("site", "--results", store.folder, "-o", tmp_path / "b")
    assert torn.status == 2 and "1 unreadable record(s): torn.json" in torn.err
    assert "torn.json" in (tmp_path / "b" / "index.html").read_text()


def test_a_folder_without_records_is_told_in_one_line_and_nothing_is_written(command, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, told in (("empty", "no record in"), ("nowhere", "does not exist")):
        ended = command("site", "--results", tmp_path / folder, "-o", tmp_path / "site")
        assert ended.status == 2 and told in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "site").exists()


def test_names_of_files_are_plain_and_no_two_are_alike():
    names = ["static/digits", "static-digits", "Static/Digits", "../../etc/passwd", "<>", "…", "a" * 300, "sequences/adding[length=1024]"]
    found = file_names(names)
    assert found["sequences/adding[length=1024]"] == "sequences-adding-length-1024"
    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_-]{1,80}", name) for name in found.values())


def test_long_lists_are_thinned_with_their_ends_and_short_ones_kept(make_record):
    assert every(range(5)) == [0, 1, 2, 3, 4]
    thin = every(range(1001))
    assert len(thin) == POINTS and thin[0] == 0 and thin[-1] == 1000 and thin == sorted(set(thin))
    curve = [i / 1000 for i in range(1000)]
    changes = {"accuracy.test_curve": curve, "accuracy.validation_curve": curve, "accuracy.test": 1 / 3}
    shown = thinned(json.loads(make_record(**changes).model_dump_json()))["accuracy"]
    assert shown["test"] == 1 / 3 and "correct" not in shown
    assert all(curve[step] == value for step, value in zip(shown["curve_steps"], shown["test_curve"], strict=True))


def test_records_of_scale_become_curves_whose_fit_is_the_line_that_they_lie_on(make_record, tmp_path):
    store = Store(tmp_path)
    store.prepare()
    memory = {"parameter_count": 1, "parameter_bytes": 4, "optimizer_bytes": 8, "transient_bytes": None, "phases": []}
    memory |= {"peak_rss_growth_bytes": None, "cuda_peak_bytes": None}
    for steps in (2, 4, 8):
        spec = {"method": "stbp", "task": "static/digits", "steps": steps, "samples": 64, "training": {"epochs": 1, "batch_size": 8}}
        store.write(make_record(key=f"a{steps}", spec=spec, memory={**memory, "saved_bytes": 100 + 50 * steps}))
    (study,) = growth.studies(store, {"a2", "a4", "a8"})
    assert study.over == "steps" and [curve.label for curve in study.curves] == ["stbp"]
    (choice,) = growth.figure(study)["choices"]
    assert choice["lines"][0]["fit"] == pytest.approx([200.0, 300.0, 500.0]) and choice["lines"][0]["growth"] == "linear"


def test_of_two_files_with_one_key_the_later_run_counts(make_record, tmp_path):
    for folder, started in (("a", "2026-01-02T00:00:00+00:00"), ("b", "2026-01-01T00:00:00+00:00")):
        store = Store(tmp_path / folder)
        store.prepare()
        store.write(make_record(key="ab", started=started))
    (run,) = read(Store(tmp_path, deep=True)).runs
    assert run.started == "2026-01-02T00:00:00+00:00"


def test_the_module_of_datatables_becomes_a_script_that_sets_one_name():
    assert "window.DataTable=b;" in assets.classic("var a=1,b=2;export{a as Other,b as default};\n/* licences */")
    with pytest.raises(ValueError, match="does not export DataTables"):
        assets.classic("var a=1;")


def _one(store, make_record, key, method, task, **changes):
    store.write(make_record(key=key, label=method, **{"spec.method": method, "spec.task": task, **changes}))


def test_a_claim_of_no_task_names_none_and_a_figure_of_a_report_is_not_called_by_a_metric():
    about = {"task": "any", "setting": "no data leak", "source": "abstract", "figure": "report.images_read"}
    claim = Claim("test_accuracy", kind="property", value=None, against="", expect="equal 0", **about)
    other = Claim("test_accuracy", kind="value", value=0.9, against="", task="static/mnist", setting="T=4", source="Table 1")
    findings = [Finding("stbp", claim, "not measured"), Finding("stbp", other, "not measured", command="spikebench run -m stbp")]
    shown = statements.grid(findings, {}, "")
    about, metric = ([head.text for head in shown.heads].index(name) for name in ("claim", "metric"))
    assert [line[about].text for line in shown.lines] == ["no data leak", "static/mnist: T=4"]
    assert [line[metric].text for line in shown.lines] == ["figure of the report", "test accuracy"]
    assert "report.images_read" in shown.lines[0][about].beside
    assert [line[about].command for line in shown.lines] == ["", "spikebench run -m stbp"]


def test_the_page_of_claims_has_the_command_of_each(site, store, registries):
    commands = {each.command for each in claims.collect(store, registries) if each.command}
    page = Parsed(site / "claims.html")
    assert len(commands) > 50 and all(command in page.text for command in commands)


def test_a_task_names_the_methods_that_cannot_do_it_with_their_reason_and_no_others(store, make_record, command, registries, tmp_path):
    _one(store, make_record, "a0", "ann2snn", "static/digits")
    _one(store, make_record, "d0", "stbp", "sequences/adding")
    assert command("site", "--results", store.folder, "-o", tmp_path / "site").status == 0
    page = Parsed(tmp_path / "site" / "tasks" / "sequences-adding.html")
    reason = registries.methods.load("ann2snn").supports(registries.task("sequences/adding"))
    assert reason and reason in page.text
    assert registries.methods.load("ottt").supports(registries.task("sequences/adding")) is None
    links = {a["href"] for tag, a in page.elements if tag == "a" and (a.get("href") or "").startswith("../methods/")}
    assert "../methods/ann2snn.html" in links and "../methods/ottt.html" not in links


def test_the_budgets_of_a_task_stand_from_large_to_small(make_record, registries, tmp_path):
    store = Store(tmp_path / "records")
    store.prepare()
    for budget in ("laptop", "smoke", "paper"):
        _one(store, make_record, budget, "stbp", "static/digits", **{"spec.budget": budget})
    write(store, registries, tmp_path / "site")
    text = (tmp_path / "site" / "tasks" / "static-digits.html").read_text()
    assert re.findall(r"<h2>(\w+) budget", text) == ["paper", "laptop", "smoke"]


def test_the_caption_of_every_plot_says_task_budget_track_device_and_seeds(site):
    page = (site / "tasks" / "static-digits.html").read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions
    for caption in captions:
        assert all(part in caption for part in ("static/digits", "smoke budget", "matched track", "Some CPU", "n = 3"))


def test_the_page_of_a_probe_has_the_means_of_what_it_found(registries, tmp_path):
    store = Store(tmp_path / "records")
    store.prepare()
    reference = json.loads((Path(__file__).parents[2] / "results/reference/conversion/34683c06b3c712b0d08b.json").read_text())
    for seed, accuracy in enumerate((0.9, 0.8, 0.6)):
        reference["key"], reference["spec"]["seed"] = f"{seed}", seed
        reference["probes"]["leakage"]["A2"]["accuracy"] = accuracy
        (store.folder / f"{seed}.json").write_text(json.dumps(reference))
    write(store, registries, tmp_path / "site")
    text = (tmp_path / "site" / "methods" / "leakage.html").read_text()
    (line,) = (row for row in re.findall(r"<tr>(.*?)</tr>", text, re.S) if "A2 rebuilt ReLU network" in row)
    assert 'data-order="0.76666' in line and "0.7667" in line and "± 0.15" in line  # of 0.9, 0.8, 0.6: 23/30, and sqrt(0.07 / 3)
    assert (tmp_path / "site" / "methods" / "tcl.html").is_file() and "../methods/tcl.html" in line


def test_figures_that_are_not_those_of_a_probe_are_told_and_break_nothing(make_record, registries, tmp_path):
    store = Store(tmp_path / "records")
    store.prepare()
    store.write(make_record(key="a0", probes={"leakage": {"A2": HOSTILE}, "crossbar[": {"x": 1}, "sata": {}}))
    write(store, registries, tmp_path / "site")
    page = Parsed(tmp_path / "site" / "methods" / "leakage.html")
    assert "stbp: its figures are not those of this probe" in page.text
