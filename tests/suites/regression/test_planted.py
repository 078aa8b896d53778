"""Mistakes planted into a copy of the code move the tracks that are meant to see them."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from methods.nn import native
from suites.regression.cores import SHAPE
from suites.regression.tracks import core_figures

ROOT = Path(__file__).parents[3]
KERNEL, OPERATOR, NEURON = "methods/nn/lif_native.py", "methods/nn/lif_operator.py", "methods/nn/neuron.py"
# name -> (file, what is there, what is planted)
PLANTS = {
    "nothing": [],
    "extra copy": [(KERNEL, "    spikes = like(current)\n", "    spikes = like(current)\n    current = current.clone()\n")],
    "saved tensor": [
        (OPERATOR, "(leak, threshold), flags))", "(leak, threshold), flags), spikes.clone())"),
        (OPERATOR, "threshold = ctx.saved_tensors\n            out = _out", "threshold = ctx.saved_tensors[:5]\n            out = _out"),
    ],
    "wrong reset": [(NEURON, "Flags(RESETS.index(self.reset),", 'Flags(RESETS.index("none"),')],
}
TRACKS = {"nothing": ["step", "run"], "extra copy": ["step"], "saved tensor": [], "wrong reset": ["run"]}  # besides the core's
MEASURE = """
import json, sys
import harness
from suites.regression.smoke import smoke
from suites.regression.tracks import core_figures, step_figures
found = {"where": harness.__file__, "core": core_figures("lif", 4)}
if "step" in sys.argv:
    found["step"] = step_figures("static/digits", "stbp", 4)
if "run" in sys.argv:
    found["run"] = smoke({"static/digits": ["stbp"]})["static/digits", "stbp"]
print(json.dumps(found))
"""

pytestmark = pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")


def planted(name: str, folder: Path) -> Path:
    """Copy the packages to ``folder`` and plant a mistake."""
    for package in ("harness", "methods", "suites"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in PLANTS[name]:
        text = (folder / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file}: {old}"
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Return name of the mistake -> what the tracks say of a copy with it; copies are measured at the same time."""
    started, found = {}, {}
    with ExitStack() as processes:
        for name in PLANTS:
            folder = planted(name, tmp_path_factory.mktemp(name.replace(" ", "_")))
            command = [sys.executable, "-c", MEASURE, *TRACKS[name]]
            environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            started[name] = folder, processes.enter_context(process)
        for name, (folder, process) in started.items():
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, err.decode()
            found[name] = json.loads(out)
            assert Path(found[name]["where"]).is_relative_to(folder)
    return found


def test_another_process_counts_the_same(figures):
    assert figures["nothing"]["core"] == core_figures("lif", 4)


def test_an_extra_copy_in_the_lif_core_shows_to_the_byte(figures):
    before, after = (figures[name]["core"] for name in ("nothing", "extra copy"))
    assert after["allocated_bytes"] - before["allocated_bytes"] == 4 * 4 * math.prod(SHAPE)
    assert after["operators"] > before["operators"]
    assert after["spikes"] == before["spikes"]


def test_an_extra_copy_in_the_lif_core_shows_in_a_training_step(figures):
    before, after = (figures[name]["step"] for name in ("nothing", "extra copy"))
    assert after["allocated_bytes"] > before["allocated_bytes"] and after["operators"] > before["operators"]


def test_a_tensor_saved_without_need_shows_to_the_byte(figures):
    before, after = (figures[name]["core"]["saved_bytes"] for name in ("nothing", "saved tensor"))
    assert after - before == 4 * 4 * math.prod(SHAPE)


def test_a_wrong_reset_shows_in_the_spikes_of_the_core(figures):
    assert figures["wrong reset"]["core"]["spikes"] > figures["nothing"]["core"]["spikes"]


@pytest.mark.parametrize("track", ["error", "spikes", "synops"])
def test_a_wrong_reset_shows_in_a_smoke_run(figures, track):
    assert figures["wrong reset"]["run"][track] != figures["nothing"]["run"][track]
