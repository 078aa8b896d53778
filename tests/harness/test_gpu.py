"""A run on a CUDA device, from spec to record. Skipped where there is none."""

import pytest
import torch

from harness.engines.local import LocalEngine
from harness.identity import plan
from harness.registry import Registries
from harness.spec import RunSpec
from harness.store import Store

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["stbp", "ottt", "bntt", "tcl", "bloctrain", "psn", "sew_resnet"])
def test_a_run_on_cuda_fills_the_figures_of_the_device(tmp_path, method, precision):
    store = Store(tmp_path)
    store.prepare()
    spec = RunSpec(method=method, task="static/digits", device="cuda", precision=precision, training={"epochs": 2})
    (record,) = LocalEngine(store).run([plan(spec, Registries())], lambda plan, event: None)
    assert record.status == "ok", record.failure
    assert record.environment.device_kind == "cuda" and record.environment.cuda
    assert record.memory.cuda_peak_bytes >= record.memory.saved_bytes > 0
    assert record.memory.peak_rss_growth_bytes is None
    assert record.time.step_median > 0 and record.accuracy.test > 0.2


def test_bytes_saved_for_backward_are_the_same_on_cpu_and_cuda(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    specs = [RunSpec(method="stbp", task="static/digits", device=device, training={"epochs": 1}) for device in ("cpu", "cuda")]
    records = LocalEngine(store).run([plan(spec, Registries()) for spec in specs], lambda plan, event: None)
    assert len({record.memory.saved_bytes for record in records}) == 1
