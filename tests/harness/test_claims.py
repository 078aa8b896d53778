"""Claims: runs that match, verdicts, and commands that make the runs again."""

import csv
import io
import json
import shlex
from pathlib import Path

import pytest

from harness.commands import run as run_module
from harness.commands import scale as scale_module
from harness.matrix import specs
from harness.plugin import Claim
from harness.registry import Registries
from harness.report.claims import VERDICTS, Finding, collect, render
from harness.spec import RunSpec
from harness.store import Store

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference"
MEMORY = {
    "parameter_count": 100,
    "parameter_bytes": 400,
    "optimizer_bytes": 0,
    "saved_bytes": 1000,
    "transient_bytes": None,
    "peak_rss_growth_bytes": None,
    "cuda_peak_bytes": None,
    "phases": [],
}
TIME = {
    **dict.fromkeys(("step_p10", "step_p90", "forward_median", "backward_median", "optimizer_median", "to_target")),
    "step_median": 1.0,
    "epoch_mean": 1.0,
    "training": 1.0,
    "between_phases": 0.0,
    "total": 1.0,
    "warm_up_steps": 0,
    "phases": [],
}


@pytest.fixture
def judged(plugin_file, make_record, tmp_path):
    """Write a card with one claim, and runs; return what became of the claim."""
    runs = []

    def add(method="mine", seed=0, *, accuracy=0.5, saved=1000, seconds=1.0, **changes):
        spec = {"method": method, "task": "static/digits", "seed": seed, **changes.pop("spec", {})}
        name = f"{len(runs):020x}"
        memory = {**MEMORY, "saved_bytes": saved, "parameter_count": changes.pop("parameters", 100)}
        time = {**TIME, "step_median": seconds}
        given = {"key": name, "spec": spec, "accuracy.test": accuracy, "memory": memory, "time": time, "environment.git_commit": "c0ffee"}
        runs.append(make_record(**{**given, **changes}))

    def judge(claim: str) -> Finding:
        text = f"""
        from harness.plugin import Card, Claim

        class Mine:
            card = Card(name="mine", title="-", authors="-", venue="-", year=2026, family="testing", summary="-", claims=({claim},))
        """
        store = Store(tmp_path / "results", deep=True)
        store.prepare()
        for record in runs:
            store.write(record)
        (found,) = collect(store, Registries([plugin_file(text)]), ["mine"])
        return found

    judge.add = add  # type: ignore[attr-defined]
    return judge


def pairs(judge, differences, base=0.5, **changes):
    """Add a pair of runs per seed whose accuracies differ by ``differences``."""
    for seed, difference in enumerate(differences):
        judge.add("mine", seed, accuracy=base + difference, **changes)
        judge.add("stbp", seed, accuracy=base, **changes)


PAPER = {"spec": {"budget": "paper"}}
GAIN = 'Claim("test_accuracy", "difference", 0.05, "static/digits", "-", "-", "stbp")'


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.048, 0.05, 0.052], "holds"),  # the figure
        ([0.08, 0.09, 0.1], "holds"),  # more
        ([0.02, 0.021, 0.022], "direction holds"),  # a gain, and less than stated
        ([-0.02, -0.03, -0.04], "does not hold"),
        ([-0.3, 0.0, 0.3], "not seen here"),  # leaves all open
    ],
)
def test_a_difference_measured_as_claimed_has_the_verdict_of_its_interval(judged, differences, verdict):
    pairs(judged, differences, **PAPER)
    found = judged(GAIN)
    assert (found.verdict, found.n) == (verdict, 3)
    assert found.measured == pytest.approx(sum(differences) / 3)
    assert min(differences) - 1e-9 <= found.low <= found.measured <= found.high <= max(differences) + 1e-9


@pytest.mark.parametrize(
    "elsewhere",
    [{"spec": {"budget": "smoke"}}, {"spec": {"task": "static/mnist", "budget": "paper"}}, {"settings.steps": 8, **PAPER}],
    ids=["budget", "task", "steps"],
)
def test_elsewhere_nothing_holds_and_nothing_is_refuted(judged, elsewhere):
    claim = GAIN.replace('"-", "-"', '"T=4", "-"')
    pairs(judged, [0.05, 0.05, 0.05], **elsewhere)
    found = judged(claim)
    assert found.verdict == "direction holds" and found.reason.startswith("elsewhere: ")
    pairs(judged, [-0.05, -0.06, -0.07], **{**elsewhere, "started": "2026-01-02T00:00:00+00:00"})
    assert judged(claim).verdict == "not seen here"


def test_two_seeds_give_no_interval_and_no_more_than_a_direction(judged):
    pairs(judged, [0.05, 0.05], **PAPER)
    found = judged(GAIN)
    assert (found.verdict, found.low, found.n) == ("direction holds", None, 2)


def test_without_an_interval_a_direction_needs_every_seed_beyond_the_margin(judged):
    pairs(judged, [0.05, 0.009], **PAPER)
    assert judged(GAIN).verdict == "not seen here"


def test_a_cost_that_is_smaller_than_stated_holds(judged):
    pairs(judged, [-0.001, 0.0, 0.001], **PAPER)
    assert judged(GAIN.replace("0.05", "-0.03")).verdict == "holds"


def test_a_cost_that_is_larger_than_stated_does_not_hold(judged):
    pairs(judged, [-0.09, -0.1, -0.11], **PAPER)
    assert judged(GAIN.replace("0.05", "-0.03")).verdict == "does not hold"


BYTES = 'Claim("saved_bytes", "ratio", 0.5, "any", "-", "-", "stbp")'


def test_bytes_of_any_task_hold_by_one_seed_of_any_budget(judged):
    judged.add("mine", saved=510)
    judged.add("stbp", saved=1000)
    found = judged(BYTES)
    assert (found.verdict, found.measured, found.low, found.high) == ("holds", 0.51, 0.51, 0.51)
    assert found.reason == ""


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"task": "static/mnist"}},
        {"spec": {"budget": "laptop"}},
        {"spec": {"track": "recipe"}},
        {"spec": {"precision": "bf16"}},
        {"spec": {"steps": 8}},
        {"spec": {"depth": 2}},
        {"spec": {"training": {"lr": 0.5}}},
        {"environment.device_kind": "cuda"},
        {"settings.data_checksum": "other"},
        {"settings.task_version": 2},
        {"settings.training": {"epochs": 2}},
        {"settings.backbone": {"kind": "other"}},
        {"status": "error"},
    ],
    ids=str,
)
def test_runs_that_differ_in_more_than_the_method_are_not_compared(judged, change):
    judged.add("mine", saved=500)
    judged.add("stbp", saved=1000, **change)
    assert judged(BYTES).verdict == "not measured"


def test_a_setting_that_older_records_lack_does_not_part_them(judged):
    judged.add("mine", saved=500, **{"settings.training": {"epochs": 1, "lr_factor": 0.1}})
    judged.add("stbp", saved=1000)
    assert judged(BYTES).verdict == "holds"


def test_options_that_both_sides_share_are_named_as_another_setting(judged):
    judged.add("mine", saved=500, spec={"options": {"blocks": 4}})
    judged.add("stbp", saved=1000, spec={"options": {"blocks": 4}})
    found = judged(BYTES)
    assert (found.verdict, found.reason) == ("direction holds", "elsewhere: with blocks=4")


def test_of_a_seed_that_was_run_again_the_latest_counts(judged):
    for saved, day in ((900, 1), (500, 3), (800, 2)):
        judged.add("mine", saved=saved, started=f"2026-01-0{day}T00:00:00+00:00")
    judged.add("stbp", saved=1000)
    assert judged(BYTES).measured == 0.5


STEPS = 'Claim("step_time", "ratio", 0.5, "any", "-", "-", "stbp")'


@pytest.mark.parametrize(
    "other",
    [
        {"environment.git_commit": "decade"},
        {"environment.device": "Another CPU"},
        {"spec": {"threads": 2}},
        {"started": "2026-01-01T07:00:00+00:00"},
    ],
    ids=str,
)
def test_times_of_different_sessions_are_not_compared(judged, other):
    judged.add("mine", seconds=0.5)
    judged.add("stbp", seconds=1.0, **other)
    found = judged(STEPS)
    assert (found.verdict, found.measured) == ("not measured", None)
    assert found.reason == "mine and stbp were timed in different sessions"


@pytest.mark.parametrize(
    "part",
    [
        {"spec": 3},
        {"settings": {}},
        {"started": "yesterday"},
        {"spec": {"method": ["mine"], "task": "static/digits", "seed": 0, "device": "cpu"}},
        {"memory": {"saved_bytes": "much", "parameter_count": "many"}, "started": "2025-01-01T00:00:00+00:00"},
        {"environment": {"device_kind": {}}},
    ],
    ids=str,
)
def test_a_record_of_nonsense_is_left_out(judged, tmp_path, part):
    judged.add("mine", saved=500)
    judged.add("stbp", saved=1000)
    good = judged(BYTES)
    record = json.loads((tmp_path / "results" / f"{0:020x}.json").read_text(encoding="utf-8"))
    (tmp_path / "results" / "bad.json").write_text(json.dumps({**record, "key": "ff", **part}), encoding="utf-8")
    again = judged(BYTES)
    assert (again.verdict, again.measured) == (good.verdict, good.measured) == ("holds", 0.5)


def test_times_of_one_session_are_compared_and_on_a_cpu_give_no_more_than_a_direction(judged):
    for seed in range(3):
        judged.add("mine", seed, seconds=0.5, spec={"budget": "paper"})
        judged.add("stbp", seed, seconds=1.0, spec={"budget": "paper"}, started="2026-01-01T05:00:00+00:00")
    found = judged(STEPS)
    assert (found.verdict, found.measured, found.reason) == ("direction holds", 0.5, "elsewhere: on cpu")


def test_bytes_saved_stand_in_for_those_of_cuda_and_are_said_to(judged):
    judged.add("mine", saved=100)
    judged.add("stbp", saved=1000)
    found = judged(BYTES.replace("saved_bytes", "cuda_bytes"))
    assert found.verdict == "direction holds" and "saved for backward in place of CUDA peak" in found.reason


@pytest.mark.parametrize(("bound", "verdict"), [("at most 1000", "holds"), ("equal 1000", "holds"), ("at most 999", "does not hold")])
def test_bounds_are_those_of_every_seed(judged, bound, verdict):
    judged.add("mine", saved=1000)
    assert judged(f'Claim("saved_bytes", "property", None, "any", "-", "-", expect="{bound}")').verdict == verdict


def test_a_figure_of_a_report_is_measured_by_its_path(judged):
    judged.add("mine", report={"loss": {"0.4": 7.0}})
    found = judged("""Claim("test_accuracy", "property", None, "any", "-", "-", expect="equal 7", figure='report.loss."0.4"')""")
    assert (found.verdict, found.measured) == ("holds", 7.0)


@pytest.mark.parametrize(
    ("bytes_", "word", "verdict"),
    [
        ((100, 100, 100), "constant", "holds"),
        ((100, 200, 400), "constant", "does not hold"),
        ((100, 200, 400), "linear", "holds"),
        ((100, 90, 50), "does not grow", "holds"),
        ((100, 200, 400), "does not grow", "does not hold"),
        ((100, 90, 50), "falls", "holds"),
    ],
)
def test_growth_over_steps_is_that_of_the_fitted_line_or_of_its_ends(judged, bytes_, word, verdict):
    for steps, saved in zip((2, 4, 8), bytes_, strict=True):
        judged.add("mine", saved=saved, spec={"steps": steps}, **{"settings.steps": steps})
    found = judged(f'Claim("saved_bytes", "property", None, "any", "-", "-", expect="{word} over steps")')
    assert (found.verdict, found.measured) == (verdict, bytes_[2] / bytes_[0])


def test_growth_over_an_option_needs_three_values_of_it(judged):
    claim = 'Claim("test_accuracy", "property", None, "any", "-", "-", expect="falls over blocks")'
    for blocks in (1, 8):
        judged.add("mine", accuracy=0.9 - blocks / 10, spec={"options": {"blocks": blocks}})
    assert judged(claim).reason == "no runs of mine at 3 values of blocks"
    judged.add("mine", accuracy=0.5, spec={"options": {"blocks": 4}})
    found = judged(claim)
    assert found.verdict == "direction holds" and found.measured == pytest.approx(-0.7)


def test_what_stands_in_for_a_baseline_is_named(judged):
    pairs(judged, [0.05, 0.05, 0.05], **PAPER)
    claim = GAIN.replace('"stbp")', '"mine[rule=bptt]", instead="stbp")')
    found = judged(claim)
    assert (found.verdict, found.reason) == ("direction holds", "elsewhere: stbp in place of mine[rule=bptt]")


def test_networks_of_other_sizes_are_no_match_for_what_is_learnt(judged):
    judged.add("mine", accuracy=0.9, parameters=200)
    judged.add("stbp", accuracy=0.5, parameters=100)
    found = judged(GAIN)
    assert found.verdict == "not measured" and "differ in size" in found.reason


def test_runs_cut_to_some_batches_say_nothing_of_accuracy(judged):
    pairs(judged, [0.2], spec={"samples": 64})
    assert judged(GAIN).verdict == "not measured"


def test_a_property_in_words_says_why_and_what_tests_it(judged):
    found = judged('Claim("energy", "property", None, "any", "low", "-", unmeasured="no figure is stated", tested="tests/a.py::test_b")')
    assert (found.verdict, found.reason, found.command) == ("not measured", "no figure is stated; tested: tests/a.py::test_b", "")


# Commands ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def findings():
    return collect(Store(REFERENCE, deep=True), Registries())


@pytest.fixture
def asked(monkeypatch):
    """Return the specs that a command of ours asks for, as its own parser reads it."""
    from harness.cli import app

    registries, found = Registries(), []

    def of_run(selection, *_, **__):
        found.extend(specs(selection, registries))

    def of_scale(selection, over, values, *_, **__):
        for value in values:
            found.extend(specs(scale_module.at(selection, over, value, registries), registries))

    monkeypatch.setattr(run_module, "run", of_run)
    monkeypatch.setattr(scale_module, "scale", of_scale)

    def read(command):
        found.clear()
        for part in command.split(" && "):
            name, *arguments = shlex.split(part)
            assert name == "spikebench"
            app(arguments, prog_name=name, standalone_mode=False)
        return list(found)

    return read


def test_the_command_of_a_measured_claim_asks_for_just_these_runs(findings, asked):
    records = {path.stem: path for path in REFERENCE.rglob("*.json")}
    measured = {finding.command: finding.keys for finding in findings if finding.keys}
    assert len(measured) > 30
    for command, keys in measured.items():
        wanted = asked(command)
        for key in keys:
            spec = RunSpec.model_validate(json.loads(records[key].read_text(encoding="utf-8"))["spec"])
            assert spec.model_copy(update={"tuning": None}) in wanted, f"{command} does not run {spec}"


def test_the_command_of_a_claim_not_measured_can_be_asked_for(findings, asked):
    missing = {finding.command for finding in findings if finding.command and not finding.keys}
    assert len(missing) > 50
    assert all(asked(command) for command in missing)


# Cards and texts --------------------------------------------------------------------------------------------------------------------


def test_tests_that_cards_name_are_there(findings):
    named = {finding.claim.tested for finding in findings if finding.claim.tested}
    assert len(named) > 10
    for text in named:
        file, _, function = text.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), text


def test_every_claim_without_a_measurement_says_why(findings):
    assert all(finding.reason for finding in findings if finding.verdict in ("not measured", "not seen here"))


def test_only_what_is_measured_as_claimed_holds_or_does_not(findings):
    assert all("elsewhere" not in finding.reason for finding in findings if finding.verdict in ("holds", "does not hold"))
    assert all(finding.claim.metric != "cuda_bytes" for finding in findings if finding.verdict == "holds")


def test_time_steps_are_read_from_the_setting():
    two = Claim("steps_used", "ratio", 0.1, "any", "T=25 against T=1000", "-", "stbp")
    one = Claim("steps_used", "value", 4, "any", "ResNet-18, T=4", "-")
    assert (two.steps, one.steps) == ((25, 1000), (4, None))


HOSTILE = "<script>|`x`*y*\x1b[31m\n# \\input{/etc/passwd} ${x}% &_"


@pytest.fixture
def hostile():
    claim = Claim("test_accuracy", "value", 0.5, "any", HOSTILE, "-")
    return Finding("mine", claim, "holds", 0.5, 0.4, 0.6, 3, HOSTILE, HOSTILE, f"spikebench {HOSTILE}")


@pytest.mark.parametrize("style", ["terminal", "github", "latex", "html"])
def test_texts_of_records_are_shown_as_texts(hostile, style):
    text = render([hostile], style)
    assert "\x1b" not in text
    assert style in ("terminal", "latex") or "<script>" not in text.replace("`spikebench <script>", "")
    assert style != "latex" or ("\\input" not in text.replace("\\textbackslash{}input", "") and "$x" not in text)
    assert style != "github" or not any(line.startswith("# ") for line in text.splitlines())


def test_csv_has_all_digits_and_all_texts(hostile):
    (row,) = csv.DictReader(io.StringIO(render([hostile], "csv")))
    assert (float(row["measured"]), row["where"], row["verdict"]) == (0.5, HOSTILE, "holds")


def test_the_summary_counts_every_verdict(findings):
    text = render(findings, "terminal").splitlines()[-1]
    counts = {verdict: sum(each.verdict == verdict for each in findings) for verdict in VERDICTS}
    assert text == f"{len(findings)} claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


# Command line -----------------------------------------------------------------------------------------------------------------------


def test_claims_of_chosen_methods_and_verdicts_are_printed(command):
    done = command("claims", "--results", REFERENCE, "-m", "ottt,sata", "--verdict", "holds,direction holds", "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert done.status == 0 and {row["method"] for row in rows} == {"ottt", "sata"}
    assert {row["verdict"] for row in rows} <= {"holds", "direction holds"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "otttt"], "unknown method or probe 'otttt'; did you mean 'ottt'?"),
        (["--verdict", "hold"], "unknown verdict 'hold'; did you mean 'holds'?"),
        (["-f", "markdown"], "unknown format 'markdown'"),
        (["--results", "/no/such/folder"], "results folder /no/such/folder does not exist"),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_one_line(command, arguments, message):
    done = command("claims", *arguments) if "--results" in arguments else command("claims", "--results", REFERENCE, *arguments)
    assert done.status == 2 and message in done.err and done.err.count("\n") == 1


def test_an_empty_folder_measures_nothing(command, tmp_path):
    done = command("claims", "--results", tmp_path)
    assert done.status == 0 and " 0 holds, 0 direction holds, 0 does not hold, 0 not seen here" in done.out


def test_a_broken_record_is_named_and_the_rest_is_printed(command, tmp_path, make_record):
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    done = command("claims", "--results", tmp_path, "-m", "stbp")
    assert done.status == 2 and "bad.json" in done.err and "claims: " in done.out
