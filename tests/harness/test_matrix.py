"""Which runs a selection means."""

import os

import pytest

from harness.matrix import Selection, choose_threads, estimate, history, plans, specs
from harness.plugin import UsageError
from harness.registry import Registries
from harness.store import Store


@pytest.fixture(scope="module")
def registries():
    return Registries()


def choose(registries, **given):
    return specs(Selection(**{"tasks": ["static/digits"], "methods": ["stbp"], **given}), registries)


def test_tasks_methods_and_seeds_multiply_in_this_order(registries):
    found = choose(registries, tasks=["static/digits", "detection/digit-scenes"], methods=["stbp", "ann"], seeds=2)
    assert [(spec.task, spec.method, spec.seed) for spec in found] == [
        (task, method, seed) for task in ("static/digits", "detection/digit-scenes") for method in ("stbp", "ann") for seed in (0, 1)
    ]


def test_what_is_named_twice_runs_once(registries):
    assert len(choose(registries, tasks=["static/digits"] * 2, methods=["stbp", "ann", "stbp"])) == 2


def test_an_empty_selection_of_methods_means_all(registries):
    assert {spec.method for spec in choose(registries, methods=[])} == set(registries.methods.names())


def test_a_suite_means_all_its_tasks_and_may_be_narrowed(registries):
    inside = [name for name in registries.tasks.names() if name.startswith("static/")]
    assert [spec.task for spec in choose(registries, tasks=[], suites=["static"])] == inside
    assert [spec.task for spec in choose(registries, suites=["static"])] == ["static/digits"]


OPTIONS = """
from typing import Literal

from pydantic import Field

from harness import plugin
from harness.task import TaskCard
from suites.static_vision import Digits


class Sized(Digits):
    card = TaskCard(name="tiny/sized", title="-", data="-", licence="-", split="-", source="-")

    class Options(plugin.Options):
        size: int = Field(8, ge=1)
        kind: Literal["a", "b"] = "a"


class Long(Digits):
    card = TaskCard(name="tiny/long", title="-", data="-", licence="-", split="-", source="-")
    budgets = {"laptop": Digits.budgets["laptop"]}


class Brief(Digits):
    card = TaskCard(name="tiny/brief", title="-", data="-", licence="-", split="-", source="-")
    budgets = {"smoke": Digits.budgets["smoke"]}
"""


def test_options_of_a_task_are_part_of_its_name_checked_sorted_and_without_defaults(plugin_file):
    registries = Registries([plugin_file(OPTIONS, "sized.py")])
    asked = ["tiny/sized[size=4,kind=b]", "tiny/sized[kind=b,size=4]", "tiny/sized[size=8]", "tiny/sized"]
    assert [spec.task for spec in choose(registries, tasks=asked)] == ["tiny/sized[kind=b,size=4]", "tiny/sized"]
    assert registries.task("tiny/sized[kind=b,size=4]").options.size == 4
    with pytest.raises(UsageError, match="tiny/sized: option size = '0'"):
        choose(registries, tasks=["tiny/sized[size=0]"])
    with pytest.raises(UsageError, match="no option 'sise'; did you mean 'size'"):
        choose(registries, tasks=["tiny/sized[sise=1]"])


def test_a_task_is_shown_with_its_first_budget_if_it_has_no_smoke(plugin_file):
    registries = Registries([plugin_file(OPTIONS, "sized.py")])
    assert registries.task("tiny/long").budget_name == "laptop" and registries.task("tiny/brief").budget_name == "smoke"


def test_a_task_without_the_budget_is_left_out_with_the_reason_if_another_has_it(registries, plugin_file):
    registries = Registries([plugin_file(OPTIONS, "sized.py")])
    both = plans(choose(registries, tasks=["static/digits", "tiny/brief"], budget="laptop"), registries)
    assert both[0].skip is None and "it has no budget 'laptop'" in both[1].skip
    with pytest.raises(UsageError, match="static/digits has no budget 'laptp'; did you mean 'laptop'"):
        choose(registries, budget="laptp")
    assert choose(registries, suites=["detection"]) == []


def test_an_unknown_suite_names_the_nearest(registries):
    with pytest.raises(UsageError, match="unknown suite 'statik'; did you mean 'static'?"):
        choose(registries, suites=["statik"])


def test_a_family_keeps_only_its_methods(registries):
    found = choose(registries, methods=[], families=["reference"])
    assert {spec.method for spec in found} >= {"ann"}
    assert {registries.methods.load(spec.method).card.family for spec in found} == {"reference"}
    assert choose(registries, methods=["stbp"], families=["reference"]) == []


def test_an_unknown_family_names_the_nearest(registries):
    with pytest.raises(UsageError, match="unknown family 'referense'; did you mean 'reference'?"):
        choose(registries, families=["referense"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["stbb"]}, "unknown method 'stbb'; did you mean 'stbp'?"),
        ({"tasks": ["static/digit"]}, "unknown task 'static/digit'; did you mean 'static/digits'?"),
        ({"probes": ["nothing"]}, "unknown probe 'nothing'"),
        ({"precision": "fp8"}, "precision = 'fp8': "),
        ({"track": "fair"}, "track = 'fair': "),
        ({"steps": 0}, "steps = 0: "),
    ],
)
def test_a_name_that_is_not_there_is_refused(registries, given, message):
    with pytest.raises(UsageError) as error:
        choose(registries, **given)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_settings_go_to_training_or_to_the_options_of_the_methods_that_have_them(registries):
    stbp, ottt = choose(registries, methods=["stbp", "ottt"], settings={"lr": "0.1", "epochs": "2", "update": "online"})
    assert stbp.training == ottt.training == {"lr": 0.1, "epochs": 2}
    assert type(stbp.training["epochs"]) is int
    assert (stbp.options, ottt.options) == ({}, {"update": "online"})


def test_options_in_brackets_and_settings_join_and_settings_win(registries):
    (spec,) = choose(registries, methods=["ottt[update=accumulate]"], settings={"update": "online"})
    assert spec.options == {"update": "online"}


def test_a_setting_that_no_chosen_method_has_is_refused_with_the_nearest_name(registries):
    with pytest.raises(UsageError, match="--set epoch: no chosen method has such an option .* did you mean 'epochs'?"):
        choose(registries, settings={"epoch": "1"})
    with pytest.raises(UsageError, match="--set update: no chosen method has such an option"):
        choose(registries, methods=["ann"], settings={"update": "online"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", "many"),
        ("epochs", "1.5"),
        ("epochs", "0"),
        ("batch_size", "-3"),
        ("lr", "0"),
        ("lr", "nan"),
        ("lr", "inf"),
        ("weight_decay", "-1"),
        ("optimizer", "rmsprop"),
        ("schedule", "step"),
        ("augment", "perhaps"),
        ("milestones", "early"),
        ("milestones", "0.5,1.5"),
        ("warm_up", "-1"),
    ],
)
def test_a_training_setting_of_the_wrong_type_or_size_is_refused_in_one_line(registries, key, value):
    with pytest.raises(UsageError) as error:
        choose(registries, settings={key: value})
    assert str(error.value).startswith(f"--set {key}={value}: ") and "\n" not in str(error.value)


def test_milestones_are_given_with_commas(registries):
    (spec,) = choose(registries, methods=["ann"], settings={"milestones": "0.6,0.8", "schedule": "drops"})
    assert spec.training == {"milestones": (0.6, 0.8), "schedule": "drops"}


def test_an_option_of_the_wrong_type_is_refused(registries):
    with pytest.raises(UsageError, match="ottt: option update = 'sometimes'"):
        choose(registries, methods=["ottt[update=sometimes]"])


def test_the_smoke_budget_uses_one_thread_and_others_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert choose_threads(Selection()) == 1
    assert choose_threads(Selection(budget="laptop")) == 8
    assert choose_threads(Selection(budget="laptop", jobs=3)) == 2
    assert choose_threads(Selection(budget="laptop", jobs=100)) == 1
    assert choose_threads(Selection(budget="smoke", threads=5)) == 5


def test_a_pair_that_cannot_run_gets_a_plan_with_the_reason(plugin_file, tiny):
    found = Registries([plugin_file(tiny)])
    fine, imageless = plans(specs(Selection(methods=["fine", "imageless"], tasks=["tiny/digits"]), found), found)
    assert fine.skip is None and fine.key and fine.settings
    assert (imageless.skip, imageless.key, imageless.settings) == ("it has no eyes", None, None)


def test_the_estimate_is_the_median_of_earlier_runs_of_method_task_and_budget(registries, tmp_path, make_record):
    store = Store(tmp_path)
    took = {"aa": 1.0, "bb": 5.0, "cc": 3.0}
    for key, seconds in took.items():
        store.write(make_record(key=key, duration=seconds))
    store.write(make_record(key="dd", duration=100.0, **{"spec.method": "ann"}))
    store.write(make_record(key="ee", duration=100.0, status="timeout"))
    (planned,) = plans(choose(registries), registries)
    assert estimate(planned, history(store)) == 3.0
    assert estimate(planned, []) is None


def test_an_option_that_a_task_has_no_use_for_leaves_out_that_pair_only(registries):
    images, boxes = plans(
        specs(Selection(methods=["stl_snn[votes=2]"], tasks=["static/digits", "detection/digit-scenes"]), registries), registries
    )
    assert images.key and images.skip is None
    assert boxes.key is None and "votes are for classes" in boxes.skip


def test_methods_run_beside_the_baselines_of_their_cards(registries):
    found = choose(registries, methods=["glif", "sew_resnet", "spiking_resnet", "ann"], against="own")
    assert [spec.label for spec in found] == ["glif", "sew_resnet", "spiking_resnet", "ann", "glif[neuron=lif]", "stbp"]


def test_a_method_to_compare_with_is_run_once(registries):
    assert [spec.label for spec in choose(registries, methods=["glif", "stbp"], against="stbp")] == ["glif", "stbp"]
    with pytest.raises(UsageError, match="unknown method 'stbb'; did you mean 'stbp'?"):
        choose(registries, methods=["glif"], against="stbb")


def test_the_baselines_of_all_cards_are_methods_with_such_options(registries):
    every = choose(registries, methods=[], against="own")
    named = {registries.methods.load(name).card.baseline for name in registries.methods.names()} - {""}
    assert "glif[neuron=lif]" in named and named <= {spec.label for spec in every}


PROBES = """
from pydantic import Field

from harness import plugin
from harness.plugin import ProbeCard
from harness.probe import Probe


class Robust(Probe):
    card = ProbeCard(name="robust", title="-", authors="-", venue="-", year=2026, family="testing", summary="-", at_steps=(2, 8))

    class Options(plugin.Options):
        sizes: tuple[int, ...] = (16, 64)

    def measure(self, method, net):
        return {}
"""


@pytest.fixture
def probing(plugin_file):
    return Registries([plugin_file(PROBES, "robust.py")])


def test_probes_are_attached_to_every_run_with_their_options_as_the_key_knows_them(probing):
    found = choose(probing, methods=["stbp", "ann"], probes=["robust[sizes=16/64]", "robust[sizes=32]"])
    assert [spec.probes for spec in found] == [("robust", "robust[sizes=32]")] * 2


def test_a_probe_named_as_method_means_what_it_is_applied_to_at_its_numbers_of_steps(probing):
    found = choose(probing, methods=["ann", "robust[sizes=32]"])
    assert [(spec.label, spec.probes) for spec in found] == [
        ("ann", ()),
        ("stbp@T=2", ("robust[sizes=32]",)),
        ("stbp@T=8", ("robust[sizes=32]",)),
    ]
    assert [spec.label for spec in choose(probing, methods=["robust"], steps=3)] == ["stbp@T=3"]


def test_a_probe_named_as_method_leaves_data_with_a_time_axis_their_steps(probing):
    assert [spec.steps for spec in choose(probing, tasks=["events/digits-saccade"], methods=["robust"])] == [None]


def test_an_unknown_option_of_a_probe_is_an_error(probing):
    with pytest.raises(UsageError, match="robust has no option 'size'.*sizes"):
        choose(probing, probes=["robust[size=32]"])
