"""asv finds the benchmarks, they run, and the tracks repeat exactly."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from harness.matrix import Selection, specs
from harness.registry import Registries
from suites.regression import times, tracks
from suites.regression.one_step import OneStep
from suites.regression.smoke import smoke

ROOT = Path(__file__).parents[3]
DISCOVER = """
import sys
sys.path.insert(0, "suites")
from asv_runner.discovery import disc_benchmarks
for benchmark in disc_benchmarks("suites/regression"):
    print(benchmark.name)
for name in ("spikingjelly", "snntorch", "norse"):
    assert name not in sys.modules, name
"""


def test_asv_finds_the_benchmarks_and_nothing_else_and_imports_no_peer():
    done = subprocess.run([sys.executable, "-c", DISCOVER], cwd=ROOT, capture_output=True, text=True, check=True)
    kinds = (tracks.Runs, tracks.Steps, tracks.Cores, times.Steps, times.Sequences, times.Cores, times.Loaders, times.Harness)
    expected = {
        f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}.{name}"
        for kind in kinds
        for name in vars(kind)
        if name.startswith(("track_", "time_"))
    }
    assert len(expected) == 20
    assert sorted(done.stdout.split()) == sorted(expected)


@pytest.fixture(scope="module")
def cost():
    """Return method and T -> what a training step costs."""
    return {(method, steps): tracks.step_figures("static/digits", method, steps) for method in ("stbp", "ottt") for steps in (2, 3, 4)}


def test_memory_of_backpropagation_through_time_grows_by_the_same_with_every_step(cost):
    two, three, four = (cost["stbp", steps]["saved_bytes"] for steps in (2, 3, 4))
    assert four - three == three - two > 0


def test_memory_of_an_online_rule_does_not_grow_with_the_steps(cost):
    assert len({cost["ottt", steps]["saved_bytes"] for steps in (2, 3, 4)}) == 1


def test_a_step_of_an_online_rule_takes_operators_for_every_time_step(cost):
    two, three, four = (cost["ottt", steps]["operators"] for steps in (2, 3, 4))
    assert four - three == three - two > 0


def test_a_training_step_leaves_nothing_behind(cost):
    assert {figures["kept_bytes"] for figures in cost.values()} == {0}


def test_what_a_commit_does_not_have_fails_alone():
    found = tracks.step_figures("static/digits", "stbpp", 2)
    assert "did you mean 'stbp'" in found
    with pytest.raises(RuntimeError, match="stbpp"):
        tracks.Steps().track_operators({("static/digits", "stbpp", 2): found}, "static/digits", "stbpp", 2)


def test_a_smoke_run_without_its_method_says_so():
    found = smoke({"static/digits": ["stbpp"], "sequences/digits-pixels": ["tcl"]})
    assert "did you mean 'stbp'" in found["static/digits", "stbpp"]
    assert "constant input" in found["sequences/digits-pixels", "tcl"]


def test_what_is_not_one_of_the_runs_is_left_out():
    with pytest.raises(NotImplementedError):
        tracks.Runs().setup({}, "sequences/digits-pixels", "tcl")
    tracks.Runs().setup({}, "static/digits", "tcl")


def test_a_track_returns_the_figure_of_its_name():
    figures = {("static/digits", "ann"): {"error": 0.1, "saved_bytes": 2.0, "spikes": math.nan, "synops": 4.0}}
    found = [getattr(tracks.Runs(), f"track_{name}")(figures, "static/digits", "ann") for name in ("error", "saved_bytes", "synops")]
    assert found == [0.1, 2.0, 4.0]


def test_every_pair_of_the_tracks_can_be_run():
    registries = Registries()
    for task, methods in tracks.RUNS.items():
        for method in methods:
            assert specs(Selection(methods=[method], tasks=[task]), registries)


@pytest.mark.parametrize("task", times.Loaders.params)
def test_loaders_are_timed_on_embedded_tasks(task):
    timed = times.Loaders()
    timed.setup(task)
    timed.time_batches(task)
    timed.time_training_epoch(task)


@pytest.mark.parametrize("task", times.Sequences.params[0])
def test_steps_are_timed_on_tasks_with_steps_of_their_own(task):
    timed = times.Sequences()
    timed.setup(task, "ann")
    timed.time_training_step(task, "ann")
    timed.time_answer(task, "ann")


def test_steps_are_timed_at_a_chosen_number_of_time_steps():
    timed = times.Steps()
    timed.setup("static/digits", "stbp", 3)
    timed.time_training_step("static/digits", "stbp", 3)
    timed.time_answer("static/digits", "stbp", 3)
    assert timed.ready.method.steps == 3


def test_a_training_step_learns_and_an_answer_does_not():
    ready = OneStep("stbp", "static/digits")
    first = ready.train().item()
    before = [p.clone() for p in ready.net.parameters()]
    ready.answer()
    assert all(a.equal(b) for a, b in zip(before, ready.net.parameters(), strict=True))
    assert [ready.train().item() for _ in range(5)][-1] < first


def test_the_configuration_of_asv_names_folders_that_are_here():
    found = json.loads((ROOT / "asv.conf.json").read_text())
    assert (ROOT / found["benchmark_dir"] / "tracks.py").is_file()
    assert found["results_dir"] == "results/asv" and found["html_dir"].startswith(".asv/")
