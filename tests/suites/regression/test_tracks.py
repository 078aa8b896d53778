"""asv's benchmarks run, and the tracks repeat exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.matrix import Selection, specs
from harness.registry import Registries
from suites.regression import times, tracks
from suites.regression.one_step import OneStep


def test_the_number_of_operations_of_a_step_repeats_and_grows_with_what_there_is_to_do():
    once, again = (tracks.operations("stbp", "static/digits") for _ in range(2))
    assert once == again > 50
    assert tracks.operations("ottt", "static/digits") > once  # a pass for every time step


def test_every_pair_of_the_tracks_can_be_run():
    registries = Registries()
    for pair in tracks.PAIRS:
        task, method = pair.split(": ")
        assert specs(Selection(methods=[method], tasks=[task]), registries)


@pytest.mark.parametrize("task", times.Loaders.params)
def test_loaders_are_timed_on_embedded_tasks(task):
    timed = times.Loaders()
    timed.setup(task)
    timed.time_batches(task)


@pytest.mark.parametrize("neuron", times.Neurons.params[0])
def test_neurons_are_timed_both_ways(neuron):
    timed = times.Neurons()
    timed.setup(neuron, 4)
    timed.time_both_ways(neuron, 4)


def test_a_training_step_learns_and_an_answer_does_not():
    ready = OneStep("stbp", "static/digits")
    first = ready.train().item()
    before = [p.clone() for p in ready.net.parameters()]
    ready.answer()
    assert all(a.equal(b) for a, b in zip(before, ready.net.parameters(), strict=True))
    assert [ready.train().item() for _ in range(5)][-1] < first


def test_the_configuration_of_asv_names_folders_that_are_here():
    root = Path(__file__).parents[3]
    found = json.loads((root / "asv.conf.json").read_text())
    assert (root / found["benchmark_dir"] / "tracks.py").is_file()
    assert found["results_dir"] == "results/asv" and found["html_dir"].startswith(".asv/")
