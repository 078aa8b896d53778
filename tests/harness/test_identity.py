"""The run key changes with whatever decides the outcome, and with nothing else."""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import identity, registry
from harness.identity import check_device, code_hash, plan, source_files
from harness.plugin import UsageError
from harness.registry import Registries
from harness.spec import RunSpec

SPEC = RunSpec(method="ottt", task="tiny/digits")
ROOT = Path(identity.__file__).parents[1]


@pytest.fixture
def key(plugin_file, tiny):
    """Return the key of a spec whose task comes from a plugin file."""

    def find(spec=SPEC, text=tiny, name="mine.py", **changes):
        return plan(spec.model_copy(update=changes), Registries([plugin_file(text, name)])).key

    return find


def test_the_same_spec_has_the_same_key_in_a_fresh_process(key, tmp_path):
    here = key()
    code = (
        "import sys, json; from harness.identity import plan; from harness.registry import Registries; from harness.spec import RunSpec;"
        "print(plan(RunSpec(**json.loads(sys.argv[1])), Registries([sys.argv[2]])).key)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps({"method": "ottt", "task": "tiny/digits"}), str(tmp_path / "mine.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == here


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"options": {"update": "online"}},
        {"training": {"lr": 0.5}},
        {"steps": 7},
        {"threads": 2},
        {"precision": "bf16"},
        {"track": "recipe"},
        {"method": "stbp"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_key_changes_with_everything_that_was_asked_for(key, change):
    assert key(**change) != key()


def test_asking_for_the_default_is_the_same_run(key):
    assert key(options={"update": Registries().methods.load("ottt").Options().update}) == key()
    assert key(steps=4) == key()
    assert key(training={"epochs": 1}) == key()


def test_the_key_does_not_change_with_the_order_of_options(key):
    one, two = {"lr": 0.5, "epochs": 2}, {"epochs": 2, "lr": 0.5}
    assert list(one) != list(two)
    assert key(training=one) == key(training=two)


def test_the_key_changes_with_the_source_of_the_plugin_even_its_comments(key, tiny):
    assert key(method="fine", text=tiny + "\n# a remark\n", name="b.py") != key(method="fine", name="a.py")


def test_the_key_does_not_change_when_the_plugin_file_is_moved_or_renamed(key):
    assert key(method="fine", name="here/a.py") == key(method="fine", name="there/b.py")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package whose method uses a part of its own, which uses another; return a function that rewrites a module."""
    folder = tmp_path / "site" / "elsewhere"

    def write(name, text):
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        identity._imports.cache_clear()
        identity._module_file.cache_clear()

    write("__init__", "")
    write("inner", "THRESHOLD = 1.0\n")
    write("part", "from elsewhere import inner\n")
    write("unused", "")
    write("method", "from . import part\nfrom methods.stbp import Stbp\n\nclass Mine(Stbp):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    point = importlib.metadata.EntryPoint("mine", "elsewhere.method:Mine", "spikebench.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "spikebench.methods" else [])
    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "elsewhere"]:
        del sys.modules[name]


@pytest.mark.parametrize("module", ["method", "part", "inner"])
def test_the_key_changes_with_every_module_of_the_plugins_package_that_it_imports(package, module, key):
    before = key(method="mine")
    text = (Path(sys.path[0]) / "elsewhere" / f"{module}.py").read_text()
    package(module, text + "# changed\n")
    assert key(method="mine") != before


def test_the_key_does_not_change_with_a_module_that_is_not_imported(package, key):
    before = key(method="mine")
    package("unused", "changed = True\n")
    assert key(method="mine") == before


def test_the_sources_of_a_run_are_the_plugin_its_parts_the_task_and_the_runner():
    registries = Registries()
    entries = [registries.methods.entry("stbp"), registries.tasks.entry("static/digits")]
    found = source_files([(entry.path, entry.module) for entry in entries], ["methods", "suites", "harness"])
    names = {path.relative_to(ROOT).as_posix() for path in found}
    assert {"methods/stbp.py", "methods/base.py", "methods/nn/neuron.py", "suites/digits.py", "harness/task.py"} <= names
    assert not names & {"methods/ottt.py", "harness/cli/runs.py", "harness/report/table.py"}


def test_the_key_changes_with_the_source_of_a_part_of_the_project(key, monkeypatch, tmp_path):
    before = key()
    changed = tmp_path / "neuron.py"
    changed.write_text((ROOT / "methods" / "nn" / "neuron.py").read_text() + "\n# changed\n")
    original = identity.source_files

    def replaced(starts, packages):
        return [changed if path.name == "neuron.py" else path for path in original(starts, packages)]

    monkeypatch.setattr(identity, "source_files", replaced)
    assert key() != before


def test_the_hash_of_the_code_changes_with_the_probes(monkeypatch, plugin_file):
    path = plugin_file("from harness.plugin import ProbeCard\n\nclass Look:\n    card = ProbeCard(name='look')\n", "probe.py")
    registries = Registries([path])
    spec = RunSpec(method="stbp", task="static/digits")
    assert code_hash(spec.model_copy(update={"probes": ("look",)}), registries) != code_hash(spec, registries)


@pytest.mark.parametrize(("what", "value"), [("version", 2), ("checksum", lambda self: "other data")])
def test_the_key_changes_with_version_and_data_of_the_task(key, monkeypatch, what, value, plugin_file, tiny):
    registries = Registries([plugin_file(tiny)])
    before = plan(SPEC, registries).key
    monkeypatch.setattr(registries.tasks.load("tiny/digits"), what, value)
    assert plan(SPEC, registries).key != before


def test_the_key_changes_with_the_model_of_the_device_and_the_version_of_torch(key, monkeypatch):
    before = key()
    with monkeypatch.context() as context:
        context.setattr(identity, "device_model", lambda device: "another CPU")
        assert key() != before
    with monkeypatch.context() as context:
        context.setattr(torch, "__version__", "0.4.1")
        assert key() != before


def test_the_key_does_not_depend_on_the_time_limit(key, tiny):
    # In the settings only: the text of the file, which does count, stays as it is.
    from dataclasses import replace

    registries = Registries([])
    task = registries.tasks.load("static/digits")
    spec = RunSpec(method="stbp", task="static/digits")
    before = plan(spec, registries)
    budgets = dict(task.budgets)
    try:
        task.budgets = {**budgets, "smoke": replace(budgets["smoke"], time_limit=1.0)}
        after = plan(spec, registries)
    finally:
        task.budgets = budgets
    assert (before.settings.time_limit, after.settings.time_limit) == (budgets["smoke"].time_limit, 1.0)
    assert before.key == after.key


def test_the_settings_name_the_plugin_file_without_its_folder(plugin_file, tiny, tmp_path):
    planned = plan(SPEC, Registries([plugin_file(tiny)]))
    assert planned.settings.plugin_file == "mine.py"
    assert str(tmp_path) not in planned.settings.model_dump_json()


@pytest.mark.parametrize("name", ["tpu", "", "gpu", "cuda:x", "cuda:-1", "mps", "meta"])
def test_an_unknown_device_is_refused_with_what_is_allowed(name):
    with pytest.raises(UsageError, match=r"device '.*' .*allowed: cpu, cuda, cuda:N|unknown device"):
        check_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"device '{name}' is not there: torch finds no CUDA device on this machine; use --device cpu"):
        check_device(name)


def test_a_gpu_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="device 'cuda:2' is not there: this machine has 2 CUDA devices"):
        check_device("cuda:2")
