"""A metric over commits: what makes a point, in which order points stand, what shares a line, and what the command prints and draws."""

import csv
import io

import pytest

from harness.plugin import UsageError
from harness.report import timeline
from harness.report.commits import Commit, Commits, git_log
from harness.report.history import read, series
from harness.store import Store

A, B, C = "a" * 40, "b" * 40, "c" * 40
# History of HEAD: a, b. Their dates go backwards (a rebase); c is on another branch, made between the two by date.
LOG = Commits(
    [
        Commit(A, "2026-02-03T00:00:00+00:00", "The first", 0),
        Commit(B, "2026-02-01T00:00:00+00:00", "The second", 1),
        Commit(C, "2026-02-05T00:00:00+00:00", "Elsewhere", None),
    ]
)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results", deep=True)
    store.prepare()
    return store


@pytest.fixture
def add(store, make_record):
    """Write a record of a commit, a seed and an accuracy."""

    def write(commit, test, seed=0, **changes):
        number = len(list(store.folder.rglob("*.json")))
        changes = {"key": f"{number:020x}", "environment.git_commit": commit, "spec.seed": seed, "accuracy.test": test, **changes}
        store.write(make_record(**changes))

    return write


def only(store, name="test_accuracy", **chosen):
    (found,) = series(store, name, commits=LOG, **chosen)
    return found


def test_a_point_has_mean_deviation_and_number_of_the_seeds_of_a_commit(store, add):
    for seed, value in enumerate((0.5, 0.7, 0.9)):
        add(A, value, seed)
    (point,) = only(store).points
    assert (point.commit, point.n) == (A, 3)
    assert point.mean == pytest.approx(0.7) and point.std == pytest.approx(0.2)


def test_points_stand_in_the_order_of_the_history_whatever_their_dates(store, add):
    add(B, 0.6, started="2026-01-01T00:00:00+00:00")
    add(A, 0.5, started="2026-01-02T00:00:00+00:00")
    assert [point.subject for point in only(store).points] == ["The first", "The second"]


def test_commits_that_are_not_in_the_history_stand_by_their_date(store, add):
    unknown = "d" * 40
    add(C, 0.6)
    add(unknown, 0.6, started="2026-01-15T00:00:00+00:00")
    add(A, 0.5)
    assert [point.commit for point in only(store).points] == [unknown, A, C]


def test_records_without_a_commit_share_a_point_per_day(store, add):
    add(None, 0.5, 0, started="2026-01-01T08:00:00+00:00")
    add(None, 0.7, 1, started="2026-01-01T20:00:00+00:00")
    add(None, 0.9, 0, started="2026-01-02T08:00:00+00:00")
    points = only(store).points
    assert [(point.commit, point.n) for point in points] == [(None, 2), (None, 1)]
    assert "no commit" in timeline.render([only(store)], "terminal")


def test_of_a_seed_that_ran_twice_at_a_commit_the_latest_counts(store, add):
    add(A, 0.5, started="2026-01-02T00:00:00+00:00")
    add(A, 0.9, started="2026-01-01T00:00:00+00:00")
    assert only(store).points[0].values == {0: 0.5}


def test_files_that_differed_from_the_commit_make_a_point_of_their_own(store, add):
    add(A, 0.5)
    add(A, 0.6, **{"environment.git_dirty": True})
    assert [(point.dirty, point.name) for point in only(store).points] == [(False, "aaaaaaaa"), (True, "aaaaaaaa+")]


def test_a_failed_seed_is_counted_and_has_no_value(store, add):
    add(A, 0.5, 0)
    add(A, 0.5, 1, status="diverged", accuracy=None, activity=None, failure={"message": "loss is nan"})
    (point,) = only(store).points
    assert (point.n, point.failed) == (1, 1)


def test_other_settings_make_a_series_of_their_own_that_says_so(store, add):
    add(A, 0.5)
    add(B, 0.9, **{"settings.training": {"epochs": 24}})
    assert sorted(each.setting for each in series(store, "test_accuracy", commits=LOG)) == ["epochs = 1", "epochs = 24"]


def test_another_code_hash_or_a_later_option_does_not_break_a_series(store, add):
    add(A, 0.5)
    add(B, 0.6, **{"settings.code_hash": "1", "settings.options": {"leak": 0.5}})
    assert len(only(store).points) == 2


@pytest.mark.parametrize(
    "change", [{"spec.budget": "laptop"}, {"spec.track": "recipe"}, {"environment.device": "Another"}, {"spec.threads": 2}]
)
def test_a_series_never_mixes_budgets_tracks_devices_or_threads(store, add, change):
    add(A, 0.5)
    add(B, 0.6, **change)
    assert [len(each.points) for each in series(store, "test_accuracy", commits=LOG)] == [1, 1]


def test_records_of_folders_below_are_points_of_the_same_series(store, add, make_record):
    add(A, 0.5)
    below = Store(store.folder / "more")
    below.prepare()
    below.write(make_record(key="ff", **{"environment.git_commit": B}))
    assert [point.commit for point in only(store).points] == [A, B]


def test_names_of_methods_labels_and_tasks_choose_series(store, add):
    add(A, 0.5)
    add(A, 0.5, label="stbp@T=2")
    add(A, 0.5, **{"spec.task": "static/mnist"})
    assert len(series(store, "test_accuracy", ["stbp"], commits=LOG)) == 3
    assert [each.label for each in series(store, "test_accuracy", ["stbp@T=2"], commits=LOG)] == ["stbp@T=2"]
    assert [each.about["task"] for each in series(store, "test_accuracy", tasks=["static/mnist"], commits=LOG)] == ["static/mnist"]


def test_unreadable_files_are_named(store, add):
    add(A, 0.5)
    (store.folder / "broken.json").write_text("{")
    found, broken = read(store, ["test_accuracy", "spikes"], commits=LOG)
    assert len(found) == 2 and broken == ["broken.json"]


def test_an_unknown_metric_is_refused_with_the_nearest(store):
    with pytest.raises(UsageError, match="did you mean 'step_time'"):
        series(store, "stp_time")


def test_the_history_of_this_checkout_is_in_topological_order():
    log = git_log()
    if not log:
        pytest.skip("not a git checkout")
    places = [commit.place for commit in log if commit.place is not None]
    assert sorted(places) == list(range(len(places))) and all(len(commit.name) == 40 for commit in log)


def test_an_exact_figure_that_changes_is_marked_in_words_with_both_levels(store, add):
    for commit, size in ((A, 2**20), (B, 2**21), (C, 2**21)):
        add(commit, 0.5, **{"memory": memory(size)})
    text = timeline.render(series(store, "saved_bytes", commits=LOG), "terminal")
    assert text.count("▲ worse: 1.000 to 2.000 MiB") == 1 and "+100.00 %" in text
    assert next(line for line in text.splitlines() if "worse" in line).startswith("bbbbbbbb")


def memory(size):
    counts = {"parameter_count": 1, "parameter_bytes": 4, "optimizer_bytes": 0, "transient_bytes": None, "phases": []}
    return {**counts, "saved_bytes": size, "peak_rss_growth_bytes": None, "cuda_peak_bytes": None}


def test_csv_holds_whole_numbers_of_every_point(store, add):
    add(A, 1 / 3)
    add(B, 2 / 3)
    lines = list(csv.DictReader(io.StringIO(timeline.render(series(store, "test_accuracy", commits=LOG), "csv"))))
    assert [float(line["mean"]) for line in lines] == [1 / 3, 2 / 3] and [line["commit"] for line in lines] == [A, B]


@pytest.mark.parametrize("style", list(timeline.FORMATS))
def test_control_characters_of_a_record_are_not_printed(store, add, style):
    add("\x1b[31mred", 0.5, label="\x1b]0;title\x07")
    assert "\x1b" not in timeline.render(series(store, "test_accuracy", commits=LOG), style)


def test_a_drawing_names_commits_seeds_and_change_points(store, add):
    for commit, size in ((A, 2**20), (B, 2**21), (C, 2**21)):
        add(commit, 0.5, label="$x$", **{"memory": memory(size)})
    (axes,) = timeline.draw(series(store, "saved_bytes", commits=LOG)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["aaaaaaaa", "bbbbbbbb", "cccccccc"]
    assert "n = 1" in axes.get_legend().get_texts()[0].get_text() and any("worse" in text.get_text() for text in axes.texts)


def test_the_command_prints_and_draws(command, store, add, tmp_path):
    add(A, 0.5)
    add(B, 0.6)
    done = command("history", "test_accuracy", "--results", store.folder, "-o", tmp_path / "new" / "h.png")
    assert done.status == 0 and "aaaaaaaa" in done.out
    assert (tmp_path / "new" / "h.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stp_time"], "did you mean 'step_time'"),
        (["spikes", "-f", "html"], "unknown format 'html'"),
        (["spikes", "-o", "x.gif"], "allowed: pdf, png, svg"),
        (["spikes", "-m", "stpb"], "did you mean 'stbp'"),
        (["gradient_cosine"], "none has the metric"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(command, store, add, arguments, said):
    add(A, 0.5)
    done = command("history", *arguments, "--results", store.folder)
    assert done.status == 2 and said in done.err and done.err.count("\n") == 1


def test_a_folder_that_is_not_there_is_refused(command, tmp_path):
    assert command("history", "spikes", "--results", tmp_path / "nowhere").status == 2
