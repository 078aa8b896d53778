"""The site in headless Chromium, opened from the file system: tables, plots, hostile texts, a phone's width, no word on the console."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from harness.metrics import METRICS, as_task_metric, format_value
from harness.registry import Registries
from harness.report.site.write import write
from harness.store import Store

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")

HOSTILE = (
    "<b>x</b><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'</td>{{7*7}}${7*7}\u2028"
    '<a href="javascript:window.hacked = 1">javascript:alert(1)</a>'
)
COSTS = [3000, 200, 1000, 40]  # sorted as texts these would stand in another order
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of four methods and three seeds, the last method hostile, of two commits; one of another task; a failure; short runs."""
    made = _records()
    folder = tmp_path_factory.mktemp("site") / "records"
    store = Store(folder, deep=True)
    store.prepare()
    for record in made:
        (folder / f"{record['key']}.json").write_text(json.dumps(record), encoding="utf-8")
    return store


@pytest.fixture(scope="module")
def site(records, tmp_path_factory):
    return write(records, Registries(), tmp_path_factory.mktemp("pages") / "site").index.parent


def _records():
    reference = json.loads((Path(__file__).parents[2] / "results/reference/02f01cc560416056ad39.json").read_text(encoding="utf-8"))
    made = []
    for place, label in enumerate(("stbp", "ottt", "sltt", HOSTILE)):
        for seed in range(3):
            record = json.loads(json.dumps(reference))
            record |= {"key": f"{place}{seed}", "label": label}
            record["spec"] |= {"method": label, "options": {}, "seed": seed}
            record["accuracy"]["test"] = 0.9 - place / 10 + seed / 100
            record["memory"]["saved_bytes"] = COSTS[place] * 1024
            record["activity"]["spikes_per_sample"] = 100.0 + place
            record["environment"]["git_commit"] = ("a" if seed else "b") * 40
            if label == HOSTILE:
                record["environment"] |= {"device": HOSTILE, "cpu": HOSTILE, "versions": {"torch": HOSTILE}, "git_commit": HOSTILE}
                record |= {"warnings": [HOSTILE], "report": {HOSTILE: HOSTILE}}
                record["activity"]["layers"][0]["name"] = record["trace"][0]["phase"] = record["time"]["phases"][0]["phase"] = HOSTILE
            made.append(record)
    failed = {**made[-1], "key": "f0", "status": "error", "accuracy": None, "failure": {"message": HOSTILE, "traceback": HOSTILE}}
    other = {**made[0], "key": "s0", "spec": {**made[0]["spec"], "task": "sequences/adding"}}
    return [*made, other, {**failed, "spec": {**failed["spec"], "seed": 3}}, *_scale(reference)]


def _scale(reference):
    for steps in (2, 4, 8):
        record = json.loads(json.dumps(reference))
        record |= {"key": f"c{steps}", "label": f"ottt[batch_size=8,epochs=1,samples=112]@T={steps}"}
        record["spec"] |= {"options": {}, "steps": steps, "samples": 112, "training": {"epochs": 1, "batch_size": 8}}
        yield record


@pytest.fixture
def open_page(browser, site):
    """Open a page and wait until its tables are enhanced; afterwards nothing may have run, been asked for or been complained of."""

    def show(name: str, width: int = 1280, ready: str = ".dt-container"):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        )
        browser.get("about:blank")
        browser.get(f"file://{site}/{name}")
        wait(browser, ready)
        return browser

    yield show
    assert browser.execute_script("return window.hacked") is None
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in sent if each["method"] == "Network.requestWillBeSent"]
    assert asked and [url for url in asked if not url.startswith(("file://", "data:", "blob:", "about:"))] == []


def wait(browser, selector):
    return WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, selector))


def column(browser, table, head):
    heads = [each.text.split(" [")[0].split("\n")[0] for each in browser.find_elements(By.CSS_SELECTOR, f"#{table} thead th")]
    place = next(i for i, text in enumerate(heads) if text.startswith(head))
    cells = browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr > :nth-child({place + 1})")
    return [cell.text for cell in cells], browser.find_elements(By.CSS_SELECTOR, f"#{table} thead th")[place]


def test_a_click_on_a_heading_sorts_by_number(open_page):
    page = open_page("tasks/static-digits.html")
    tables = [each.get_attribute("id") for each in page.find_elements(By.CSS_SELECTOR, "table.dataTable")]
    table = next(name for name in tables if len(page.find_elements(By.CSS_SELECTOR, f"#{name} tbody tr")) == 3)
    figures, head = column(page, table, "saved")
    assert [float(text.split()[0]) for text in figures] == [2.930, 0.1953, 0.9766]  # by accuracy, which the table comes sorted by
    head.click()
    assert [float(text.split()[0]) for text in column(page, table, "saved")[0]] == [0.1953, 0.9766, 2.930]
    head.click()
    assert [float(text.split()[0]) for text in column(page, table, "saved")[0]] == [2.930, 0.9766, 0.1953]


def test_a_menu_and_the_search_box_leave_fewer_rows(open_page):
    page = open_page("runs.html", ready="#runs tbody tr td")
    rows = lambda: len(page.find_elements(By.CSS_SELECTOR, "#runs tbody tr"))  # noqa: E731
    assert rows() == 17
    menu = next(each for each in page.find_elements(By.CSS_SELECTOR, ".menus label") if each.text.startswith("status"))
    menu.find_element(By.CSS_SELECTOR, "option[value=error]").click()
    assert rows() == 1
    menu.find_element(By.CSS_SELECTOR, "option[value='']").click()
    page.find_element(By.CSS_SELECTOR, ".dt-search input").send_keys("sltt")
    assert rows() == 3


def test_the_address_chooses_runs_of_one_row(open_page):
    page = open_page("runs.html#label=ottt&task=static%2Fdigits&budget=smoke&track=matched", ready="#runs tbody tr td")
    assert {cell.text for cell in page.find_elements(By.CSS_SELECTOR, "#runs tbody tr > :nth-child(2)")} == {"ottt"}
    assert len(page.find_elements(By.CSS_SELECTOR, "#runs tbody tr")) == 3


def pareto(page):
    """Return the figure of accuracy against cost, drawn."""
    figures = page.find_elements(By.CSS_SELECTOR, "figure.plot")
    figure = next(each for each in figures if '"kind":"pareto"' in each.find_element(By.CSS_SELECTOR, "script").get_attribute("innerText"))
    page.execute_script("arguments[0].scrollIntoView()", figure)
    WebDriverWait(page, 10).until(lambda _: figure.find_elements(By.CSS_SELECTOR, ".scatterlayer .point"))
    return figure


def test_plots_are_drawn_and_their_menu_changes_the_axis(open_page):
    page = open_page("tasks/static-digits.html", ready="figure.plot .scatterlayer .point")
    figure = pareto(page)
    assert len(figure.find_elements(By.CSS_SELECTOR, ".scatterlayer .point")) == 3
    title = lambda: figure.find_element(By.CSS_SELECTOR, ".xtitle").text  # noqa: E731
    assert title().startswith("saved for backward")
    figure.find_elements(By.CSS_SELECTOR, "select option")[1].click()
    WebDriverWait(page, 10).until(lambda _: title() and not title().startswith("saved for backward"))


def test_the_pareto_front_is_a_staircase(open_page):
    page = open_page("tasks/static-digits.html", ready="figure.plot .scatterlayer .point")
    path = pareto(page).find_element(By.CSS_SELECTOR, ".scatterlayer .js-line").get_attribute("d")
    steps = re.findall("[MHVL]", path)
    assert steps[0] == "M" and {"H", "V"} <= set(steps) and "L" not in steps
    assert steps[1] == "H"  # more memory than a point has buys no accuracy until the next


def test_plots_offer_to_send_nothing_anywhere(open_page):
    page = open_page("tasks/static-digits.html", ready="figure.plot .modebar-btn")
    offered = [each.get_attribute("data-title") for each in page.find_elements(By.CSS_SELECTOR, "figure.plot .modebar-btn")]
    assert "Download plot as a PNG" in offered and not [text for text in offered if re.search("share|cloud|edit", text, re.I)]


def test_suites_have_a_menu_and_no_column(open_page):
    page = open_page("index.html")
    heads = [each.text.strip() for each in page.find_elements(By.CSS_SELECTOR, "#overview thead th") if each.is_displayed()]
    assert "task" in heads and "suite" not in heads
    menu = next(each for each in page.find_elements(By.CSS_SELECTOR, ".menus label") if each.text.startswith("suite"))
    assert len(page.find_elements(By.CSS_SELECTOR, "#overview tbody tr")) == 3
    menu.find_element(By.CSS_SELECTOR, "option[value=sequences]").click()
    assert [each.text for each in page.find_elements(By.CSS_SELECTOR, "#overview tbody tr > :first-child")] == ["sequences/adding"]


def test_a_run_that_failed_says_so_first_and_shows_its_traceback(open_page):
    page = open_page("run.html#f0", ready="#run h1")
    assert page.find_element(By.CSS_SELECTOR, "#run h1 .badge.fails").text == "error"
    assert page.find_element(By.CSS_SELECTOR, "#run section h2").text == "Failure"
    assert page.find_element(By.CSS_SELECTOR, "#run pre").get_attribute("textContent") == HOSTILE


@pytest.mark.parametrize("name", ["scaling.html", "history.html"])
def test_scaling_and_history_draw_their_lines(open_page, name):
    page = open_page(name, ready="figure.plot .scatterlayer .point")
    assert len(page.find_elements(By.CSS_SELECTOR, "figure.plot .scatterlayer .point")) >= 2


MEASURED = (
    "return [...document.querySelector('#run section tbody').rows].map((row) => [...row.cells].slice(0, 2).map((c) => c.textContent))"
)


def test_the_page_of_a_run_shows_the_figures_of_its_record_as_python_writes_them(open_page, records):
    page = open_page("run.html#11", ready="#run .scatterlayer .point")
    record = json.loads(records.path("11").read_text(encoding="utf-8"))
    metrics = [as_task_metric(metric, "accuracy") for metric in METRICS.values()]
    wanted = {m.title: format_value(m, value) for m in metrics if (value := m.read(record)) is not None}
    assert len(wanted) > 30 and dict(page.execute_script(MEASURED)) == wanted
    text = page.find_element(By.ID, "run").text
    for part in ("Settings", "Environment", "Activity layer by layer", "AMD EPYC", "code_hash", record["settings"]["code_hash"]):
        assert part in text


def test_figures_are_rounded_as_python_rounds_them(open_page):
    page = open_page("run.html#11", ready="#run h2")
    values = [90.625, 96.875, 0.125, 2.5, 1e-9, 1234.5, 99.995, 5.0, 0.0, 1023.9999, 1 / 3, 7e12, 0.015]
    for name in ("test_accuracy", "saved_bytes", "spikes", "step_time", "energy", "throughput", "firing_rate"):
        shown = page.execute_script("return arguments[1].map((v) => formatValue(metrics[arguments[0]], v))", name, values)
        assert shown == [format_value(METRICS[name], value) for value in values]


PAGES = ["index.html", "methods.html", "claims.html", "runs.html", "history.html", "scaling.html", "run.html#30", "run.html#f0"]


@pytest.mark.parametrize("name", [*PAGES, "HOSTILE METHOD", "tasks/static-digits.html"])
def test_hostile_texts_stand_as_texts_and_nothing_leaves_a_phones_width(open_page, site, name):
    if name == "HOSTILE METHOD":
        (found,) = (path for path in (site / "methods").glob("b-x-b-script-*.html"))
        name = f"methods/{found.name}"
    page = open_page(name, width=390, ready="#run h1" if name.startswith("run.html") else ".dt-container, figure.plot .point")
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    assert (
        page.execute_script("return document.querySelectorAll('#content script:not([type]), #content img, a[href^=javascript]').length")
        == 0
    )
    if name.startswith(("run.html", "runs", "methods/", "tasks", "index")):
        assert "<script>window.hacked = 1</script>" in page.execute_script("return document.getElementById('content').textContent")


def test_hostile_names_are_texts_in_plots_too(open_page):
    page = open_page("run.html#30", ready="#run .main-svg text")
    drawn = wait(page, ".legendtext")
    assert any("<b>x</b>" in (text.get_attribute("textContent") or "") for text in drawn)
    assert page.find_elements(By.CSS_SELECTOR, ".main-svg a") == []


def test_a_key_that_no_run_has_is_told(open_page):
    page = open_page("run.html#%3Cimg%20src=x%3E", ready="#state")
    WebDriverWait(page, 10).until(lambda b: "no run has the key <img src=x>" in b.find_element(By.ID, "state").text)
