"""Records are run again and compared: one real run of a tiny plugin, and records made by hand for what may differ."""

import pytest

from harness.engines.local import LocalEngine
from harness.identity import plan
from harness.metrics import metric
from harness.plugin import UsageError
from harness.record import Record, encode_bits
from harness.registry import Registries
from harness.spec import RunSpec
from harness.store import Store
from harness.verify import rerun
from harness.verify.candidate import Candidate
from harness.verify.files import read_folder
from harness.verify.marks import read_marks


@pytest.fixture(scope="module")
def plugin(tmp_path_factory, tiny):
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text(tiny)
    return path


@pytest.fixture(scope="module")
def submitted(tmp_path_factory, plugin):
    """A folder with the record of one real run."""
    store = Store(tmp_path_factory.mktemp("submitted"))
    store.prepare()
    planned = plan(RunSpec(method="fine", task="tiny/digits"), Registries([plugin]))
    (record,) = LocalEngine(store, [plugin]).run([planned], lambda plan, event: None)
    assert record.status == "ok", record.failure
    return store.folder


@pytest.fixture
def nothing(tmp_path):
    return tmp_path


def test_a_real_record_run_again_agrees_to_the_last_digit_and_is_marked_so(command, submitted, plugin, nothing):
    done = command("verify", submitted, "--rerun", "1", "--plugin", plugin, "--mark", "--results", nothing)
    assert done.status == 0, done.out
    assert "with seed" in done.out and "agrees to the last digit" in done.out and "1 agree with a second run" in done.out
    assert [mark["rerun"] for mark in read_marks(submitted).values()] == [True]
    assert sorted(path.suffix for path in submitted.iterdir() if path.is_file()) == [".json", ".json"]  # nothing else was left


def test_without_its_plugin_file_a_record_is_not_run_again_and_that_is_no_pass(command, submitted, nothing):
    (submitted / "verified.json").unlink(missing_ok=True)
    done = command("verify", submitted, "--rerun", "1", "--mark", "--results", nothing)
    assert done.status == 2 and "not run again" in done.out and "name it with --plugin" in done.out
    assert "no record could be run again here" in done.err
    assert [mark["rerun"] for mark in read_marks(submitted).values()] == [False]


def test_a_record_whose_data_are_others_is_not_compared(submitted, plugin):
    (candidate,) = read_folder(submitted)
    registries = Registries([plugin])
    assert not isinstance(rerun.plan_here(candidate, registries), str)
    candidate.record = changed(candidate.record, **{"settings.data_checksum": "0"})
    assert rerun.plan_here(candidate, registries) == "the data here are others"


def test_a_record_of_other_settings_than_the_code_resolves_now_is_not_compared(submitted, plugin):
    (candidate,) = read_folder(submitted)
    candidate.record = changed(candidate.record, **{"settings.training.epochs": 9})
    assert "training.epochs 9, here 1" in rerun.plan_here(candidate, Registries([plugin]))


def test_a_run_that_ends_here_for_want_of_time_or_memory_says_nothing(submitted, plugin, monkeypatch):
    (candidate,) = read_folder(submitted)
    ended = candidate.record.model_copy(update={"status": "timeout", "failure": None})
    monkeypatch.setattr(LocalEngine, "run", lambda self, plans, listen: [ended])
    (outcome,) = rerun.run_again([candidate], 1, Registries([plugin]), [plugin], lambda line: None)
    assert "ended here as timeout" in outcome.reason and not candidate.rerun and not candidate.findings


def changed(record, **changes):
    plain = record.model_dump()
    for name, value in changes.items():
        *parents, last = name.split(".")
        part = plain
        for parent in parents:
            part = part[parent]
        part[last] = value
    return Record.model_validate(plain)


def answers(right, items=1000):
    """Return the fields of a record that answered the first ``right`` of ``items`` items rightly."""
    bits = encode_bits([i < right for i in range(items)])
    return {"accuracy.test": right / items, "accuracy.correct": bits, "accuracy.items": items}


def errors(record, again):
    findings, _ = rerun.compare(record, again)
    return [finding.message for finding in findings if finding.severity == "error"]


def test_accuracy_may_differ_by_three_points(make_record):
    again = make_record(**answers(900))
    assert not errors(make_record(**answers(925)), again)
    assert "accuracy 0.95, run again 0.9 (paired test" in errors(make_record(**answers(950)), again)[0]


def test_a_larger_difference_on_few_items_may_be_chance(make_record):
    assert not errors(make_record(**answers(18, 20)), make_record(**answers(16, 20)))  # McNemar: two disagreements, p = 0.5


def test_errors_of_forecasts_may_differ_by_a_tenth(make_record):
    def forecast(value):
        return make_record(**{"accuracy.metric": "rrse", "accuracy.test": value, "accuracy.items": 0, "accuracy.correct": ""})

    assert not errors(forecast(0.95), forecast(1.0)) and errors(forecast(0.85), forecast(1.0))


@pytest.mark.parametrize(
    ("name", "place", "allowed"),
    [
        ("saved_bytes", "memory.saved_bytes", 1.005),
        ("spikes", "activity.spikes_per_sample", 1.09),
        ("synops", "activity.synops_effective", 1.09),
    ],
)
def test_other_figures_may_differ_within_bounds(make_record, name, place, allowed):
    memory = {"parameter_count": 1, "parameter_bytes": 4, "optimizer_bytes": 0, "transient_bytes": None, "phases": []}
    again = make_record(memory={**memory, "saved_bytes": 1000, "peak_rss_growth_bytes": None, "cuda_peak_bytes": None})
    value = metric(name).read(again.model_dump())
    assert not errors(changed(again, **{place: round(allowed * value)}), again)
    assert metric(name).title in errors(changed(again, **{place: round(1.2 * value)}), again)[0]
    if name != "saved_bytes":
        assert errors(changed(again, **{place: None}), again)


def test_a_record_that_cannot_be_repeated_fails(make_record):
    failed = make_record(status="diverged", failure={"message": "loss is nan", "exit_code": None, "signal": None})
    assert errors(make_record(), failed) == ["run again it ended as diverged: loss is nan"]


def test_other_figures_on_the_same_ground_are_noted_though_they_are_within_bounds(make_record):
    findings, exact = rerun.compare(make_record(**answers(901)), make_record(**answers(900)))
    assert [finding.severity for finding in findings] == ["warning"] and not exact
    elsewhere = make_record(**answers(900), **{"environment.cpu": "Another"})
    assert rerun.compare(make_record(**answers(901)), elsewhere) == ([], False)


def test_the_draw_follows_from_contents_and_commit_and_holds_all_that_ran(tmp_path, make_record, monkeypatch):
    candidates = [Candidate(tmp_path / f"{i}.json", f"{i:064x}", make_record(key=f"{i:020x}")) for i in range(20)]
    candidates.append(Candidate(tmp_path / "f.json", "f" * 64, make_record(key="f" * 20, status="timeout")))
    drawn = rerun.choose(candidates, 2, [])
    assert drawn == rerun.choose(list(reversed(candidates)), 2, []) and len(drawn) == 20
    monkeypatch.setattr(rerun, "git_state", lambda: ("another commit", False))
    assert rerun.choose(candidates, 2, []) != drawn
    candidates[0].sha256 = "e" * 64
    assert rerun.seed_of(candidates) != rerun.seed_of(candidates[1:])


def test_records_are_named_by_the_beginning_of_their_key(tmp_path, make_record):
    candidates = [Candidate(tmp_path / f"{key}.json", key, make_record(key=key)) for key in ("ab1", "ab2")]
    assert rerun.choose(candidates, 0, ["ab2"]) == [candidates[1]]
    for key, said in (("ab", "2 records"), ("c", "no records")):
        with pytest.raises(UsageError, match=said):
            rerun.choose(candidates, 0, [key])
