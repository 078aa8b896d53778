"""Bugs planted in a copy of this code are found, each by the figure that it is about."""

from __future__ import annotations

import json

import pytest

from harness.regress import exact, figures, schedule
from harness.regress.plan import Plan, Timing
from harness.regress.settings import Settings
from harness.regress.side import checkout
from tests.harness.regress.conftest import git

CALL = "        state = self.carried()\n"
COPY = ("methods/nn/neuron.py", CALL, "        current = current.clone()\n" + CALL)
SAVE = "ctx.save_for_backward(*_saved(current, found, v0, r0, (leak, threshold), flags)"
LEAK = ("methods/nn/lif_operator.py", SAVE, SAVE + ", spikes.clone()")
TAKE = ("methods/nn/lif_operator.py", "= ctx.saved_tensors\n            out", "= ctx.saved_tensors[:5]\n            out")
PILE = ("methods/nn/neuron.py", CALL, "        self.__dict__.setdefault('pile', []).append(current.detach().clone())\n" + CALL)
RESET = ("methods/nn/neuron.py", "RESETS.index(self.reset)", "RESETS.index('soft' if self.reset == 'hard' else self.reset)")


def plant(top, *edits):
    for path, before, after in edits:
        text = (top / path).read_text()
        assert text.count(before) == 1, f"{path} has changed: plant this bug elsewhere"
        (top / path).write_text(text.replace(before, after))


def quiet(text):
    pass


@pytest.fixture
def judged(clone, monkeypatch):
    """Plant bugs, and return case -> metric -> status of what no noise touches."""
    monkeypatch.chdir(clone)

    def judge(*edits, runs=()):
        plant(clone, *edits)
        plan = Plan(list(runs), ["lif", "lif-soft"], [], 1, 32, 1, [])
        with checkout("HEAD", ".") as sides:
            base, head = figures.measure(plan, sides, quiet)
        return {case: {each.metric: each.status for each in exact.compare(case, base[case], head[case], Settings())} for case in base}

    return judge


def test_an_extra_copy_in_the_core_shows_as_an_operation(judged):
    found = judged(COPY)
    assert found["core lif"]["operations"] == "worse" and found["core lif"]["results"] == "same"


def test_one_more_tensor_saved_for_backward_shows_in_core_and_run(judged):
    found = judged(LEAK, TAKE, runs=[("static/digits", "stbp")])
    assert found["core lif"]["saved_bytes"] == found["static/digits: stbp"]["saved_bytes"] == "worse"
    assert found["core lif"]["results"] == "same"


def test_a_list_that_grows_with_every_call_shows_as_bytes_left(judged):
    assert judged(PILE)["core lif"]["left_bytes"] == "worse"


def test_copies_in_the_core_show_in_its_time(clone, monkeypatch):
    monkeypatch.chdir(clone)
    plant(clone, (COPY[0], CALL, "        for _ in range(6):\n            current = current.clone()\n" + CALL))
    monkeypatch.setattr(schedule, "EXTRA", 2.0)
    monkeypatch.setattr(schedule, "SESSIONS", 2)
    with checkout("HEAD", ".") as sides:
        (found,) = schedule.measure(sides, [Timing("core_time", "core lif", {"core": "lif"})], 8, Settings(), quiet)
    assert found.change > 0.1
    assert found.status == "slower" or found.threshold > 0.2  # on a machine so busy that its noise hides them, operations tell


def test_a_wrong_reset_fails_the_command_and_leaves_nothing_behind(clone, monkeypatch, command, tmp_path):
    monkeypatch.chdir(clone)
    plant(clone, RESET)
    chosen = ("-t", "static/digits", "-m", "stbp", "--rounds", "0")
    ended = command("regress", "HEAD", ".", *chosen, "--json", str(tmp_path / "found.json"), "--summary", str(tmp_path / "summary.md"))
    assert ended.status == 1 and "Regression" in ended.out.splitlines()[-1]
    found = json.loads((tmp_path / "found.json").read_text())
    statuses = {(each["case"], each["metric"]): each["status"] for each in found["findings"]}
    assert statuses["core lif", "spikes"] == "worse"  # what a soft reset leaves adds up
    assert statuses["core lif-soft", "results"] == "same"
    assert (tmp_path / "summary.md").read_text().startswith("### spikebench regress: regression")
    assert len(git(clone, "worktree", "list").splitlines()) == 1


def test_a_head_that_breaks_is_a_regression_and_a_base_that_breaks_is_none(clone, monkeypatch):
    monkeypatch.chdir(clone)
    plant(clone, ("methods/nn/neuron.py", CALL, "        raise RuntimeError('broken on purpose')\n"))
    plan = Plan([], ["lif"], [], 1, 32, 1, [])
    with checkout("HEAD", ".") as sides:
        base, head = figures.measure(plan, sides, quiet)
    (found,) = exact.compare("core lif", base["core lif"], head["core lif"], Settings())
    assert found.status == "failed" and "broken on purpose" in found.note
    (found,) = exact.compare("core lif", head["core lif"], base["core lif"], Settings())
    assert found.status == "new"
