"""Folders of records are matched, compared exactly where that means something, and tested where it does not."""

from __future__ import annotations

import pytest

from harness.plugin import UsageError
from harness.record import encode_bits
from harness.regress.folders import compare
from harness.regress.settings import Settings
from harness.store import Store


@pytest.fixture
def folder(tmp_path, make_record):
    """Write records with seeds 0, 1 ... to a folder; ``changes`` are the same for all, ``per_seed`` gives further ones."""

    def write(name, seeds=1, per_seed=lambda seed: {}, **changes):
        store = Store(tmp_path / name)
        store.prepare()
        for seed in range(seeds):
            memory = {
                "parameter_count": 10,
                "parameter_bytes": 40,
                "optimizer_bytes": 80,
                "saved_bytes": 1000,
                "transient_bytes": 2000,
                "peak_rss_growth_bytes": 9,
                "cuda_peak_bytes": None,
                "phases": [],
            }
            trace = [{"phase": "train", "epoch": 0, "loss": 1.0, "seconds": 1.0, "validation": 0.5, "batches": 1}]
            spec = {"method": "stbp", "task": "static/digits", "seed": seed}
            fields = {"memory": memory, "trace": trace, "spec": spec, "key": f"ab{seed}", **changes, **per_seed(seed)}
            store.write(make_record(**fields))
        return tmp_path / name

    return write


def said(base, head, **kwargs):
    outcome = compare(base, head, Settings(), **kwargs)
    return {each.metric: each.status for each in outcome.findings}, outcome


def test_equal_records_give_no_regression(folder):
    found, outcome = said(folder("a", seeds=3), folder("b", seeds=3))
    assert set(found.values()) == {"same"} and outcome.exit_status == 0


def test_one_more_byte_is_a_regression(folder):
    found, outcome = said(folder("a"), folder("b", **{"memory.saved_bytes": 1001}))
    assert found["saved_bytes"] == "worse" and outcome.exit_status == 1


def test_more_spikes_on_the_same_machine_are_a_regression_and_on_another_are_not_compared(folder):
    base = folder("a")
    found, _ = said(base, folder("b", **{"activity.spikes_per_sample": 101.0}))
    assert found["spikes"] == "worse"
    found, outcome = said(base, folder("c", **{"activity.spikes_per_sample": 101.0, "environment.cpu": "Another CPU"}))
    assert "spikes" not in found and found["saved_bytes"] == "same"
    assert any("different machines" in note for note in outcome.notes)


def answers(right, items=1000):
    """Return the fields of a record that has answered ``right`` of its items rightly."""
    return {
        "accuracy.items": items,
        "accuracy.test": right / items,
        "accuracy.correct": encode_bits([i < right for i in range(items)]),
    }


def test_a_loss_of_accuracy_counts_when_items_and_seeds_say_so(folder):
    base = folder("a", seeds=4, per_seed=lambda seed: answers(900 + seed))
    found, outcome = said(base, folder("b", seeds=4, per_seed=lambda seed: answers(850 + 2 * seed)))
    assert found["test_accuracy"] == "worse" and outcome.exit_status == 1


def test_a_loss_that_chance_explains_is_a_change_and_not_worse(folder):
    base = folder("a", seeds=3, per_seed=lambda seed: answers(900 + seed))
    found, _ = said(base, folder("b", seeds=3, per_seed=lambda seed: answers(899 + 2 * seed)))
    assert found["test_accuracy"] == "same" and found["results"] == "changed"


def test_more_accuracy_is_better_and_passes(folder):
    base = folder("a", seeds=4, per_seed=lambda seed: answers(850 + 2 * seed))
    found, outcome = said(base, folder("b", seeds=4, per_seed=lambda seed: answers(900 + seed)))
    assert found["test_accuracy"] == found["results"] == "better" and outcome.exit_status == 0


def times(seconds):
    names = ("step_p10", "step_p90", "forward_median", "backward_median", "optimizer_median", "to_target")
    plain = dict.fromkeys(names)
    known = {"epoch_mean": 1, "training": 1, "between_phases": 0, "total": 2, "warm_up_steps": 3, "phases": []}
    return {"time": {**plain, **known, "step_median": seconds}}


def test_times_are_tested_over_seeds(folder):
    base = folder("a", seeds=6, per_seed=lambda seed: times(0.010 + seed * 1e-5))
    found, _ = said(base, folder("b", seeds=6, per_seed=lambda seed: times(0.012 + seed * 1e-5)))
    assert found["step_time"] == "slower"
    found, _ = said(base, folder("c", seeds=6, per_seed=lambda seed: times(0.0102 + seed * 1e-5)))
    assert found["step_time"] == "same"  # slower for sure, and by less than the threshold


def test_times_that_their_own_record_doubts_are_left_out(folder):
    base = folder("a", seeds=6, per_seed=lambda seed: times(0.010 + seed * 1e-5))
    doubt = ["load average 9.0 exceeded the 2 cores: times are not to be trusted"]
    found, _ = said(base, folder("b", seeds=6, per_seed=lambda seed: times(0.02), warnings=doubt))
    assert "step_time" not in found


def test_a_run_that_fails_now_is_a_regression(folder):
    failure = {"status": "diverged", "failure": {"message": "loss is nan", "exit_code": 1}, "accuracy": None}
    found, outcome = said(folder("a"), folder("b", **failure))
    assert found == {"results": "failed"} and outcome.exit_status == 1


def test_records_with_other_settings_are_compared_in_accuracy_alone(folder):
    found, outcome = said(folder("a", seeds=3), folder("b", seeds=3, **{"settings.steps": 8, "memory.saved_bytes": 9999}))
    assert set(found) == {"test_accuracy"} and any("settings or data differ" in note for note in outcome.notes)


def test_what_has_no_counterpart_is_told(folder):
    _, outcome = said(folder("a", seeds=3), folder("b", seeds=2))
    assert any("1 record(s)" in note for note in outcome.notes)


def test_folders_that_share_nothing_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="matches"):
        said(folder("a"), tmp_path / "empty")
    with pytest.raises(UsageError, match="matches"):
        said(folder("a"), folder("b"), methods=["ottt"])


def test_a_broken_file_is_told_and_the_rest_compared(folder):
    base, head = folder("a"), folder("b")
    (head / "broken.json").write_text("{")
    found, outcome = said(base, head)
    assert found and any("broken.json" in note for note in outcome.notes)
