"""Every way to tamper with a record is caught by a check; records as they were measured pass. The second run is in test_verify_rerun."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from harness.identity import code_hash
from harness.printable import printable
from harness.record import decode_bits, encode_bits, read_record
from harness.registry import Registries
from harness.report.commits import Commit, Commits, git_log
from harness.store import Store
from harness.verify import consistency, plausibility, provenance
from harness.verify.files import read_file
from harness.verify.folder import verify
from harness.verify.marks import read_marks, write_marks
from harness.verify.provenance import Here, key_of

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
FEW = 3  # real records that tests work on


@pytest.fixture(scope="module")
def registries():
    return Registries()


@pytest.fixture(scope="module")
def here(registries):
    """What specs resolve to, planned once for all tests; and the commits of this checkout."""
    return Here(registries), Commits(git_log())


@pytest.fixture(scope="module")
def beside():
    """Reference records of static/digits, and one whose data are not here."""
    return [record for path in sorted(REFERENCE.glob("[0-9a-f]*.json")) if (record := read_record(path)).spec.task == "static/digits"]


@pytest.fixture(scope="module")
def measured():
    """Real records: one method on static/digits with three seeds, and another one."""
    paths = sorted(REFERENCE.glob("[0-9a-f]*.json"), key=lambda path: (read_record(path).label != "stbp", path.name))
    return [path for path in paths if read_record(path).spec.task == "static/digits"][:FEW]


@pytest.fixture
def folder(tmp_path, measured):
    """A folder of real records, to be tampered with."""
    folder = tmp_path / "records"
    folder.mkdir()
    for path in measured:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def nothing(tmp_path):
    """Reference records: none."""
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


@pytest.fixture
def tamper(folder):
    """Change the first record and write it back, under its key unless told otherwise; ``rekey`` gives it the key that then follows."""

    def change(how, rekey=False, name=None):
        path = sorted(folder.glob("*.json"))[0]
        raw = json.loads(path.read_text())
        how(raw)
        if rekey:
            raw["key"] = key_of(raw, raw["environment"]["versions"]["torch"], raw["environment"]["device"])
            if raw["key"] != path.stem:
                path.unlink()
        path = folder / f"{name or raw['key']}.json"
        path.write_text(json.dumps(raw))
        return path

    return change


def found(folder, reference, registries, severity="error"):
    """Return what was found, "check: message", of all records of a folder."""
    texts = [f"{f.check}: {f.message}" for each in verify(folder, reference, registries) for f in each.findings if f.severity == severity]
    return "\n".join(texts)


def origin(path, here, reference=(), severity="error"):
    """Return what the check of a record's origin finds."""
    known = read_file(path)
    findings = provenance.check(known.record, known.raw, here[0], reference, here[1])
    return "\n".join(f"{f.check}: {f.message}" for f in findings if f.severity == severity)


def put(raw, place, value):
    *parents, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
    for parent in parents:
        raw = raw[parent]
    raw[last] = value(raw[last]) if callable(value) else value


def test_records_as_they_were_measured_pass(folder, nothing, registries):
    assert not found(folder, nothing, registries)


def test_a_random_tenth_of_the_reference_records_passes(tmp_path, nothing, registries):
    folder = tmp_path / "tenth"
    folder.mkdir()
    for path in random.Random(0).sample(sorted(REFERENCE.rglob("[0-9a-f]*.json")), 50):
        shutil.copy(path, folder)
    assert not found(folder, nothing, registries)


def raise_accuracy(raw):
    raw["accuracy"]["test"] = raw["accuracy"]["test_metrics"]["accuracy"] = raw["accuracy"]["test_curve"][-1] = 0.999


def flip_bits(raw):
    bits = decode_bits(raw["accuracy"]["correct"], raw["accuracy"]["items"])
    raw["accuracy"]["correct"] = encode_bits([not bit for bit in bits])


def scale_times(raw):
    for phase in raw["time"]["phases"]:
        for name in ("total", "forward", "backward", "optimizer"):
            phase[name] = [value // 2 for value in phase[name]]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (raise_accuracy, "the correctness bits say"),
        (flip_bits, "the correctness bits say"),
        (lambda raw: put(raw, "accuracy.correct", "zz"), "not hexadecimal"),
        (lambda raw: put(raw, "accuracy.correct", lambda bits: bits + "ff"), "bytes of correctness bits for"),
        (lambda raw: put(raw, "accuracy.test_curve", lambda curve: [*curve[:-1], 0.1]), "its curve ends at 0.1"),
        (lambda raw: put(raw, "accuracy.test_metrics.accuracy", 0.2), "among all metrics"),
        (lambda raw: put(raw, "accuracy.validation", 1.5), "not a share"),
        (lambda raw: put(raw, "accuracy.steps_used", 9.0), "9.0 time steps used of 4"),
        (lambda raw: put(raw, "accuracy.curve_steps", [0, 1]), "points at 2 steps"),
        (lambda raw: put(raw, "accuracy.curve_steps", [0, 2, 1, 3]), "do not rise"),
        (lambda raw: put(raw, "accuracy.counts", {"exits": {"1": 3}}), "counted for 3 of"),
        (lambda raw: put(raw, "activity.energy", lambda joules: joules / 2), "its operations take"),
        (lambda raw: put(raw, "activity.spikes_per_sample", 10.0), "the layers have"),
        (lambda raw: put(raw, "activity.spikes_curve", lambda curve: [0.0, *curve[1:]]), "the steps have"),
        (lambda raw: put(raw, "activity.firing_rate", 0.01), "firing rate and membrane updates give"),
        (lambda raw: put(raw, "activity.spikes_per_neuron", 0.01), "do not give the spikes"),
        (lambda raw: put(raw, "activity.membrane_updates", 10.0), "that could emit 10"),
        (lambda raw: put(raw, "activity.synops_ac", 1.0), "accumulations and"),
        (lambda raw: put(raw, "activity.synops_dense", 100.0), "that there are (dense)"),
        (lambda raw: put(raw, "activity.macs_nominal", 100.0), "that there are (nominal)"),
        (lambda raw: put(raw, "activity.synops_curve", lambda curve: [0.0, *curve[1:]]), "operations, and the steps have"),
        (lambda raw: put(raw, "activity.synops_samples", 10**6), "operations counted on 1000000"),
        (lambda raw: put(raw, "activity.activation_sparsity", 1.1), "activation sparsity 1.1, not a share"),
        (lambda raw: put(raw, "memory.saved_bytes", 100), "saved bytes 100, and the largest"),
        (lambda raw: put(raw, "memory.transient_bytes", None), "transient bytes None"),
        (lambda raw: put(raw, "memory.parameter_bytes", 1), "parameters in 1 bytes"),
        (lambda raw: put(raw, "time.step_median", 1e-5), "and its samples have"),
        (lambda raw: put(raw, "time.phases.0.total.5", 1), "not the sums of their parts"),
        (lambda raw: put(raw, "time.phases.0.total", lambda steps: steps[:-1]), "unequal numbers"),
        (scale_times, "and its samples have"),
        (lambda raw: put(raw, "time.unsteadiness", 1.0), "unsteadiness 1.000"),
        (lambda raw: put(raw, "time.total", 0.1), "is less than training"),
        (lambda raw: put(raw, "duration", 0.1), "of a process that took 0.10 s"),
        (lambda raw: put(raw, "time.training", 0.1), "and the epochs took"),
        (lambda raw: put(raw, "time.to_target", 0.1), "not the end of an epoch"),
        (lambda raw: put(raw, "time.loading", 0.0), "loading took 0"),
        (lambda raw: put(raw, "time.training_throughput", 1.0), "samples per second in training"),
        (lambda raw: [put(raw, f"trace.{i}.batches", 1) for i in range(len(raw["trace"]))], "step times in phase 'train', which had"),
        (lambda raw: put(raw, "time.phases.0.phase", "other"), "different phases"),
        (lambda raw: put(raw, "inference.latency_median", 1e-9), "median latency"),
    ],
)
def test_a_figure_that_was_changed_contradicts_others(tamper, how, said):
    record = read_file(tamper(how)).record
    assert said in " ".join(finding.message for finding in consistency.check(record, whole=True) if finding.severity == "error")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda raw: put(raw, "spec.seed", 99), "the key does not follow"),
        (lambda raw: put(raw, "settings.training.lr", 0.5), "the key does not follow"),
        (lambda raw: put(raw, "settings.code_hash", "0" * 16), "the key does not follow"),
        (lambda raw: put(raw, "settings.data_checksum", "0" * 16), "the key does not follow"),
        (lambda raw: put(raw, "environment.device", "A faster CPU"), "the key does not follow"),
        (lambda raw: put(raw, "environment.versions", {"python": "3", "numpy": "2"}), "without the version of torch"),
        (lambda raw: put(raw, "label", "mine"), "the label is 'mine'"),
        (lambda raw: put(raw, "environment.threads", 8), "8 threads, and 1 were asked for"),
        (lambda raw: put(raw, "environment.device_kind", "cuda"), "ran on cuda"),
        (lambda raw: put(raw, "environment.cuda", "12"), "CUDA version 12 on cpu"),
        (lambda raw: put(raw, "memory.cuda_peak_bytes", 1), "CUDA memory on the CPU"),
        (lambda raw: put(raw, "started", "2999-01-01T00:00:00+00:00"), "in the future"),
        (lambda raw: put(raw, "started", "2026-01-01T00:00:00"), "without a time zone"),
        (lambda raw: put(raw, "started", "yesterday"), "is no date"),
        (lambda raw: put(raw, "environment.git_commit", "main"), "'main' is not a commit"),
    ],
)
def test_a_changed_origin_is_caught(here, tamper, how, said):
    assert said in origin(tamper(how), here)


def test_data_that_are_not_those_here_are_caught_although_the_key_follows(here, tamper):
    errors = origin(tamper(lambda raw: put(raw, "settings.data_checksum", "0" * 16), rekey=True), here)
    assert "data: checksum of the data 0000000000000000; those here have" in errors and "the key does not follow" not in errors


def test_data_that_are_not_here_are_compared_with_those_of_reference_records(here, tamper, monkeypatch):
    monkeypatch.delenv("SPIKEBENCH_DATA", raising=False)
    monkeypatch.setattr(here[0], "resolve", lambda record: "no data")
    path = next(path for path in sorted((REFERENCE / "baselines").glob("*.json")) if read_record(path).spec.task == "events/nmnist-small")

    def change(raw):
        raw.update(json.loads(path.read_text()))
        raw["settings"]["data_checksum"] = "0" * 16

    changed = tamper(change, rekey=True)
    assert "data: checksum of the data 0000000000000000; reference records" in origin(changed, here, [read_record(path)])
    assert "no reference record has them" in origin(changed, here, [], "warning")
    assert "data" not in origin(path, here, [read_record(path)])


def test_settings_of_the_same_code_that_are_not_what_it_resolves_to_are_caught(here, registries, tamper, folder):
    ours = code_hash(read_record(sorted(folder.glob("*.json"))[0]).spec, registries)

    def change(raw):
        raw["settings"]["code_hash"] = ours
        raw["settings"]["training"]["epochs"] = 1000

    assert "the same code resolves the spec to other settings: training.epochs 1000, here" in origin(tamper(change, rekey=True), here)


def test_settings_that_other_code_resolves_otherwise_are_noted_and_options_that_came_later_are_not(here, tamper):
    def change(raw):
        raw["settings"]["training"]["epochs"] = 1000
        del raw["settings"]["options"][next(iter(raw["settings"]["options"]))]

    noted = origin(tamper(change, rekey=True), here, severity="warning")
    assert "training.epochs 1000, here" in noted and "options." not in noted


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda raw: put(raw, "environment.git_dirty", True), "differed from commit"),
        (lambda raw: put(raw, "environment.git_commit", None), "no commit"),
        (lambda raw: put(raw, "environment.deterministic", False), "may not repeat"),
        (lambda raw: put(raw, "settings.plugin_file", "mine.py"), "of a plugin file (mine.py)"),
        (lambda raw: put(raw, "trace", lambda trace: trace[:-1]), "epochs were trained, and the settings say"),
        (lambda raw: raw.update(status="timeout", failure={"message": "-", "exit_code": None, "signal": None}), "did not succeed"),
    ],
)
def test_what_a_reader_should_know_is_a_warning(here, tamper, how, said):
    path = tamper(how)
    record = read_file(path)
    others = [*record.findings, *consistency.check(record.record)]
    assert said in origin(path, here, severity="warning") + " ".join(f.message for f in others if f.severity == "warning")


def test_commits_that_the_checkout_does_not_know_or_that_are_later_than_the_run_are_noted(here, tamper):
    log = [Commit("a" * 40, "2026-01-02T00:00:00+00:00", "-", 0)]
    known = (here[0], Commits(log))
    assert "00000000 is not known to this checkout" in origin(
        tamper(lambda raw: put(raw, "environment.git_commit", "0" * 40)), known, severity="warning"
    )
    early = tamper(lambda raw: [put(raw, "environment.git_commit", "a" * 40), put(raw, "started", "2026-01-01T00:00:00+00:00")])
    assert "before its commit aaaaaaaa was made" in origin(early, known, severity="warning")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1]", "not a JSON object"),
        (b'{"key": NaN}', "NaN is not JSON"),
        (b'{"key": "a", "key": "b"}', "'key' is there twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 10_000 + b"}", "not JSON as records are"),
        (b'{"schema_version": 2}', "schema_version"),
    ],
)
def test_a_file_that_is_no_record_says_why(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    assert said in " ".join(finding.message for finding in read_file(tmp_path / "a.json").findings)


def test_links_fifos_and_huge_files_are_not_read(tmp_path, measured):
    (tmp_path / "link.json").symlink_to(measured[0])
    os.mkfifo(tmp_path / "fifo.json")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(51 * 2**20)
    said = [read_file(tmp_path / f"{name}.json").findings[0].message for name in ("link", "fifo", "huge")]
    assert "symbolic link" in said[0] and "not a regular file" in said[1] and "51 MiB" in said[2]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda raw: raw.update(more=1), "more: Extra inputs"),
        (lambda raw: raw.update(status="great"), "unknown status"),
        (lambda raw: raw.update(memory=None), "status ok without memory"),
        (lambda raw: raw.update(failure={"message": "-"}), "status ok with a failure"),
        (lambda raw: raw.update(status="timeout"), "without saying why"),
        (lambda raw: put(raw, "accuracy.test", "0.9"), "in another form than records have (a number as a text, say): accuracy.test"),
        (lambda raw: put(raw, "activity.synops_dense", "NaN"), "not a finite number: activity.synops_dense"),
        (lambda raw: put(raw, "memory.saved_bytes", 10**400), "not a finite number: memory.saved_bytes"),
    ],
)
def test_a_record_of_another_schema_is_caught(tamper, how, said):
    assert said in " ".join(finding.message for finding in read_file(tamper(how)).findings if finding.severity == "error")


def test_a_record_that_a_check_cannot_work_with_fails_and_the_others_are_checked(folder, nothing, registries, monkeypatch):
    real, first = consistency.check, sorted(folder.glob("*.json"))[0].stem

    def check(record, whole):
        return real(record, whole) if record.key != first else iter([1 / 0])

    monkeypatch.setattr(consistency, "check", check)
    candidates = verify(folder, nothing, registries)
    assert [each.failed for each in candidates] == [True, False, False]
    assert "they cannot be worked with: ZeroDivisionError" in candidates[0].findings[-1].message


def test_a_file_under_another_name_is_caught(folder, nothing, registries, tamper):
    path = sorted(folder.glob("*.json"))[0]
    tamper(lambda raw: None, name="0" * 20)
    errors = found(folder, nothing, registries)
    assert f"the record's key is '{path.stem}'" in errors and "the same run key as" in errors


def test_a_copy_under_another_seed_is_caught_by_its_times_and_losses(folder, nothing, registries):
    path = sorted(folder.glob("*.json"))[0]
    raw = json.loads(path.read_text())
    raw["spec"]["seed"] = 42
    raw["key"] = key_of(raw, raw["environment"]["versions"]["torch"], raw["environment"]["device"])
    (folder / f"{raw['key']}.json").write_text(json.dumps(raw))
    errors = found(folder, nothing, registries)
    for what in ("to the last digit those of", "step times", "samples of latency", "seconds of epochs", "every loss in training"):
        assert what in errors


def test_one_run_under_two_keys_is_caught(folder, nothing, registries, tamper):
    raw = json.loads(sorted(folder.glob("*.json"))[0].read_text())
    raw["key"] = "0" * 20
    (folder / f"{raw['key']}.json").write_text(json.dumps(raw))
    assert "two records of one run under two keys" in found(folder, nothing, registries)


def test_the_same_wrong_answers_under_other_seeds_are_noted(folder, nothing, registries):
    wrong = encode_bits([i % 20 > 0 for i in range(360)])
    for path in sorted(folder.glob("*.json")):
        raw = json.loads(path.read_text())
        raw["accuracy"]["correct"] = wrong
        path.write_text(json.dumps(raw))
    assert "wrong on exactly those 18 of 360 items" in found(folder, nothing, registries, "warning")


def test_what_the_reference_records_have_already_is_noted(folder, tmp_path, measured, registries):
    shutil.copytree(folder, tmp_path / "reference" / "study")
    assert "is among the reference records already (study/" in found(folder, tmp_path / "reference", registries, "warning")


def test_times_copied_from_a_reference_record_are_caught(folder, tmp_path, registries, tamper):
    shutil.copytree(folder, tmp_path / "reference")
    tamper(lambda raw: put(raw, "spec.seed", 42), rekey=True)
    assert "to the last digit those of" in found(folder, tmp_path / "reference", registries)


def test_a_folder_of_reference_records_is_not_compared_with_itself(folder, registries):
    assert not found(folder, folder, registries) and not found(folder, folder, registries, "warning")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda raw: put(raw, "accuracy.test", 0.05), "not better than guessing among 10 classes"),
        (lambda raw: put(raw, "memory.saved_bytes", 10), "bytes saved for backward"),
        (lambda raw: put(raw, "time.step_median", 1e-4), "step time 0.1 ms; stbp takes"),
        (lambda raw: put(raw, "inference.latency_median", 1e-9), "a sample alone takes 1e-09 s"),
    ],
)
def test_what_is_unlikely_beside_the_reference_method_is_noted(beside, registries, tamper, how, said):
    record = read_file(tamper(how)).record
    assert said in " ".join(finding.message for finding in plausibility.check(record, beside, registries))


@pytest.mark.parametrize("part", ["inference.throughput", "time.step_median"])
def test_what_no_machine_can_do_is_an_error(registries, tamper, part):
    record = read_file(tamper(lambda raw: put(raw, part, 1e12 if part.startswith("inference") else 1e-9))).record
    errors = [finding.message for finding in plausibility.check(record, [], registries) if finding.severity == "error"]
    assert len(errors) == 1 and "too many for 1 thread" in errors[0]


def test_accuracy_far_above_the_best_reference_record_is_noted(folder, tmp_path, registries, make_record):
    best = [make_record(**{"accuracy.test": value}) for value in (0.5, 0.6)]
    far, near = (make_record(**{"accuracy.test": value, "accuracy.items": 1000}) for value in (0.75, 0.65))
    said = [" ".join(finding.message for finding in plausibility.check(each, best, registries)) for each in (far, near)]
    assert "the best of 2 reference records is 0.6" in said[0] and "best of" not in said[1]


def test_far_fewer_wrong_answers_than_the_best_are_noted_though_the_gain_is_small(registries, make_record):
    best = [make_record(**{"accuracy.test": 0.98})]
    few = plausibility.check(make_record(**{"accuracy.test": 0.999, "accuracy.items": 10_000}), best, registries)
    assert any("the best of 1" in finding.message for finding in few)


# Marks ---------------------------------------------------------------------------------------------------------------


def test_only_what_passed_is_marked_and_a_changed_file_loses_its_mark(folder, nothing, registries, tamper):
    first = sorted(folder.glob("*.json"))[0]
    write_marks(folder, verify(folder, nothing, registries))
    assert len(read_marks(folder)) == FEW and not any(mark["rerun"] for mark in read_marks(folder).values())
    tamper(raise_accuracy)
    write_marks(folder, verify(folder, nothing, registries))
    assert set(read_marks(folder)) == {path.stem for path in folder.glob("[0-9a-f]*.json")} - {first.stem}


def test_a_second_run_stays_marked_as_long_as_the_file_is_the_same(folder, nothing, registries):
    candidates = verify(folder, nothing, registries)
    candidates[0].rerun = True
    write_marks(folder, candidates)
    write_marks(folder, verify(folder, nothing, registries))
    marks = read_marks(folder)
    assert [key for key, mark in marks.items() if mark["rerun"]] == [candidates[0].path.stem]
    assert marks[candidates[0].path.stem]["sha256"] == candidates[0].sha256 and len(candidates[0].sha256) == 64


def test_a_store_shows_the_marks_and_takes_their_file_for_no_record(folder, nothing, registries):
    write_marks(folder, verify(folder, nothing, registries))
    rows, broken = Store(folder).select({"key": "key"})
    assert len(rows) == FEW and not broken and Store(folder).verified() == {row["key"] for row in rows}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"schema": 1, "records": {"../x": {}, "%s": {"sha256": 1}}}' % (b"0" * 20), b"\xff"])
def test_a_broken_file_of_marks_marks_nothing(folder, content):
    (folder / "verified.json").write_bytes(content)
    assert read_marks(folder) == {}


# Command -------------------------------------------------------------------------------------------------------------


def test_the_command_passes_good_records_and_marks_them(command, folder, nothing):
    done = command("verify", folder, "--mark", "--results", nothing)
    assert done.status == 0 and f"{FEW} record(s): {FEW} pass" in done.out and f"{FEW} record(s) marked" in done.out
    assert json.loads((folder / "verified.json").read_text())["schema"] == 1
    assert "has no place in what somebody hands in" in command("verify", folder, "--results", nothing).out


def test_the_command_fails_for_a_tampered_record_and_says_which(command, folder, nothing, tamper):
    path = tamper(raise_accuracy)
    done = command("verify", folder, "--results", nothing)
    assert done.status == 1 and "error figures: accuracy 99.900 %" in done.out and path.stem[:8] in done.out


def test_the_command_prints_no_control_character_of_a_record(command, folder, nothing, tamper):
    tamper(lambda raw: raw.update(label="\x1b]0;owned\x07[red]", **{"\x1b[2Jx": 1}))
    (folder / "\x1b[31m.json").write_text("{")
    done = command("verify", folder, "--results", nothing)
    assert done.status == 1 and "\x1b" not in done.out and "\x07" not in done.out


def test_what_cannot_be_checked_is_refused(command, tmp_path, folder, nothing):
    below = tmp_path / "outer"
    shutil.copytree(folder, below / "inner")
    for arguments, said in (
        (["nowhere"], "folder nowhere does not exist"),
        ([nothing], "holds no record"),
        ([below], "name one of the folders below: inner"),
        ([folder, "--results", "nowhere"], "--results nowhere does not exist"),
        ([folder, "--results", nothing, "--key", "zz"], "no records of the folder have a key that starts so"),
    ):
        done = command("verify", *arguments, *(() if "--results" in arguments else ("--results", nothing)))
        assert done.status == 2 and said in done.err and done.err.count("\n") == 1


def test_text_is_shown_without_what_is_not_printed():
    assert printable("a\x1b[31mb\n\u202ec ▲é") == "a?[31mb??c ▲é"
