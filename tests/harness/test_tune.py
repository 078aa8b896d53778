"""Tuning: equal trials, on validation only; runs are made up here, so that the best setting is known."""

import math

import pytest

from harness.commands import tune as module
from harness.store import Store


@pytest.fixture
def runs(monkeypatch, make_record):
    """Answer every run with a record whose validation figure is best at lr = 0.01; return the specs in order."""
    seen = []

    def execute(planned, folder, *_):
        store = Store(folder)
        store.prepare()
        made = []
        for plan in planned:
            lr = plan.settings.training["lr"]
            seen.append(plan.spec)
            figures = {"accuracy.validation": 1 - abs(math.log10(lr / 0.01)), "accuracy.test": abs(math.log10(lr / 0.01))}
            made.append(make_record(key=plan.key, spec=plan.spec, settings=plan.settings, **figures))
            store.write(made[-1])
        return made

    monkeypatch.setattr(module, "execute", execute)
    return seen


def test_every_method_gets_as_many_trials_and_the_best_on_validation_is_run_with_all_seeds(command, runs, tmp_path):
    outcome = command(*("tune", "-t", "static/digits", "-m", "stbp,ann", "--trials", "8", "--seeds", "2", "--results", str(tmp_path)))
    assert outcome.status == 0, outcome
    trials = [spec for spec in runs if spec.tuning is None]
    assert [spec.method for spec in trials] == ["stbp"] * 8 + ["ann"] * 8 and {spec.seed for spec in trials} == {0}
    assert trials[0].training == {}  # the first is the defaults
    final = [spec for spec in runs if spec.tuning is not None]
    assert [(spec.method, spec.seed) for spec in final] == [("stbp", 0), ("stbp", 1), ("ann", 0), ("ann", 1)]
    for spec in final:
        tried = [trial.training.get("lr", 0.004) for trial in trials if trial.method == spec.method]
        assert spec.training.get("lr", 0.004) == min(tried, key=lambda lr: abs(math.log10(lr / 0.01)))
        assert spec.tuning == "best of 8 trials on validation, lr in [0.0003, 0.03] (log)"


def test_what_the_user_sets_is_not_tuned(command, runs, tmp_path):
    outcome = command("tune", "-t", "static/digits", "-m", "stbp", "--set", "lr=0.01", "--trials", "2", "--results", str(tmp_path))
    assert outcome.status == 2 and "nothing left to tune" in outcome.err


def test_one_trial_is_too_few(command, runs, tmp_path):
    outcome = command("tune", "-t", "static/digits", "-m", "stbp", "--trials", "1", "--results", str(tmp_path))
    assert outcome.status == 2 and "--trials 1: two at least" in outcome.err
