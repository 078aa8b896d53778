"""What ``spikebench regress`` measures a state of the code with: one program for both, started with that code on its path.

::

    PYTHONPATH=CODE python -P regress_worker.py CODE

Orders come as lines of JSON on standard input, answers go as lines of JSON to standard output; what the measured code prints goes to
standard error. It imports nothing of ``suites``, so that a change of the other benchmarks is no change of its figures::

    {"do": "run", "task": "static/digits", "method": "stbp", "seed": 0, "samples": 256, "epochs": 2}    a record
    {"do": "step", "task": "static/digits", "method": "stbp"}      operations of a training step, bytes that a step leaves behind
    {"do": "core", "core": "lif"}                                  operations, saved and left bytes, spikes, hash of spikes and gradients
    {"do": "prepare", "name": "...", "kind": "step", ...}          make ready what "time" then calls
    {"do": "time", "name": "...", "times": 5, "calls": 8}          seconds per call, of 5 times 8 calls, waits for a core taken off
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

NEURONS, STEPS, FEW_STEPS = 8192, 64, 16
PACKAGES = ("harness", "methods", "suites")
SCHEDULE = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, nanoseconds waiting for one, turns
Call = Callable[[], Any]


class OwnModules(MetaPathFinder):
    """Finds modules of the measured packages by their path alone.

    An editable installation answers for modules that its packages have and the measured ones lack; those would be measured instead.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return where a module of ``PACKAGES`` lies; raise ModuleNotFoundError if it is not there."""
        if name.partition(".")[0] not in PACKAGES:
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found


class Watch(TorchDispatchMode):
    """Context that counts the operations that reach a kernel, and the bytes of what they made and is still alive."""

    def __init__(self) -> None:
        """Start from nothing."""
        super().__init__()
        self.operations = 0
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}

    @property
    def bytes(self) -> int:
        """Return the bytes alive of storages made within the context."""
        return sum(size for _, size in self._alive.values())

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, count it and follow what it made."""
        self.operations += 1
        held = [leaf.untyped_storage() for leaf in tree_iter((args, kwargs)) if _plain(leaf)]
        given = {id(storage) for storage in held}
        result = func(*args, **(kwargs or {}))
        for storage in (leaf.untyped_storage() for leaf in tree_iter(result) if _plain(leaf)):
            key = id(storage)
            if key not in given and key not in self._alive:
                self._alive[key] = weakref.ref(storage, lambda _, key=key: self._alive.pop(key, None)), storage.nbytes()
        return result


def _plain(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.device.type != "meta"


def watched(call: Call) -> dict[str, int]:
    """Return the operations of ``call`` and the bytes that it leaves behind every time, as of its third and fourth call."""
    call(), call()
    with Watch() as watch:
        call()
        gc.collect()
        operations, before = watch.operations, watch.bytes
        call()
        gc.collect()
        return {"operations": operations, "left_bytes": watch.bytes - before}


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one short run, as the runner does, and return its record."""
    from harness.matrix import Selection, plans, specs
    from harness.registry import Registries
    from harness.runner import run_job

    registries = Registries()
    settings = {} if order["epochs"] is None else {"epochs": str(order["epochs"])}
    chosen = Selection([order["method"]], [order["task"]], seeds=order["seed"] + 1, samples=order["samples"], threads=1, settings=settings)
    (plan,) = plans(specs(chosen, registries)[-1:], registries)
    if plan.skip or plan.settings is None:
        return {"cannot": plan.skip}
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "spec": plan.spec.model_dump(mode="json"),
            "settings": plan.settings.model_dump(mode="json"),
            "key": plan.key,
            "started": time.time(),
            "plugin_files": [],
            "results": folder,
            "keep_networks": False,
        }
        record = run_job(job, lambda event: None)
    return {"record": json.loads(record.model_dump_json())}


def steps(order: dict[str, Any]) -> tuple[Call, Call]:
    """Return a training step and the answer to a batch, of the first phase of a method on the first training batch."""
    from harness.loop import Updater, make_optimizer
    from harness.meters.clock import StepClock
    from harness.registry import Registries
    from harness.spec import parse_variant

    registries = Registries()
    name, options = parse_variant(order["method"])
    method = registries.methods.load(name)(registries.task(order["task"], "smoke"), options)
    torch.manual_seed(0)
    net: nn.Module = method.build()
    phase = next(iter(method.phases(net)))
    device, training = method.task.device, phase.training or method.training
    chosen = list(phase.parameters) if phase.parameters is not None else list(net.parameters())
    update = Updater(make_optimizer(chosen, training), StepClock(device), "fp32", device, training.clip_norm)
    batch = next(method.task.batches("train", training.batch_size))
    if phase.on_epoch:
        phase.on_epoch(0, training.epochs)

    def train() -> None:
        for module in phase.modules or [net]:
            module.train()
        (phase.step or method.step)(net, batch, update)

    def answer() -> None:
        net.eval()
        with torch.no_grad():
            method.predict(net, batch.inputs)

    return train, answer


def core(name: str) -> tuple[Callable[[], tuple[Tensor, Tensor]], nn.Module]:
    """Return a call that gives spikes and gradients of a layer of ``NEURONS`` neurons, and the layer; raise ValueError for no such core."""
    from methods.nn.neuron import LIF
    from methods.nn.psn import PSN

    makers = {
        "lif": (STEPS, lambda: LIF()),
        "lif-soft": (STEPS, lambda: LIF(reset="soft")),
        "lif-learnt": (STEPS, lambda: LIF(learn=("leak", "threshold"))),
        "lif-reference": (FEW_STEPS, lambda: LIF(backend="reference")),
        "psn": (FEW_STEPS, lambda: PSN(FEW_STEPS)),
    }
    if name not in makers:
        raise ValueError(f"there is no neuron core {name!r}; allowed: {', '.join(makers)}")
    torch.manual_seed(0)
    length, make = makers[name]
    neuron = make()
    current = torch.randn(length, NEURONS, requires_grad=True)
    gradient = torch.linspace(0.5, 1.5, length * NEURONS).view(length, NEURONS)

    def both_ways() -> tuple[Tensor, Tensor]:
        spikes = neuron(current)
        return spikes.detach(), torch.autograd.grad(spikes, current, gradient)[0]

    return both_ways, neuron


def core_figures(order: dict[str, Any]) -> dict[str, Any]:
    """Return what a neuron core computes and takes."""
    both_ways, neuron = core(order["core"])
    owned, sizes = {p.data_ptr() for p in neuron.parameters()}, {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        spikes, gradient = both_ways()
    digest = hashlib.sha256()
    for tensor in (spikes, gradient):
        digest.update(tensor.contiguous().numpy().tobytes())
    return {**watched(both_ways), "saved_bytes": sum(sizes.values()), "spikes": int(spikes.sum()), "values": digest.hexdigest()[:16]}


def loading(order: dict[str, Any]) -> Call:
    """Return a call that goes once through the test data of a task, encoding included."""
    from harness.registry import Registries

    task = Registries().task(order["task"], "smoke")
    task.split("test")

    def batches() -> None:
        for batch in task.batches("test"):
            task.encode(batch.inputs, task.steps)

    return batches


def harness_loop(order: dict[str, Any]) -> Call:
    """Return a call that trains an epoch through the loop of the harness, on samples so few that the loop itself counts."""
    from harness.identity import make
    from harness.loop import train
    from harness.matrix import Selection, specs
    from harness.registry import Registries

    registries = Registries()
    chosen = Selection([order["method"]], [order["task"]], samples=64, threads=1, settings={"epochs": "1", "batch_size": "8"})
    method = make(specs(chosen, registries)[0], registries)
    torch.manual_seed(0)
    net = method.build()
    return lambda: train(method, net, seed=0)


KINDS: dict[str, Callable[[dict[str, Any]], Call]] = {
    "step_time": lambda order: steps(order)[0],
    "answer_time": lambda order: steps(order)[1],
    "core_time": lambda order: core(order["core"])[0],
    "loader_time": loading,
    "harness_time": harness_loop,
}


def waited() -> int:
    """Return the nanoseconds that this thread has been ready and waited for a core; 0 where the system does not tell."""
    try:
        return int(SCHEDULE.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def timed(call: Call, times: int, calls: int) -> list[float]:
    """Return the seconds per call of ``times`` times ``calls`` calls.

    A call before, which is not timed, brings back into caches what the other side drove out. Waits are read within what is timed, or one
    that falls into the reading would be taken off without having been counted.
    """
    call()
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        wait = waited()
        for _ in range(calls):
            call()
        wait = waited() - wait
        found.append((time.perf_counter() - begin - wait / 1e9) / calls)
    return found


def main() -> None:
    """Say where the measured packages lie, then obey orders until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.meta_path.insert(0, OwnModules())
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    ready: dict[str, Call] = {}

    def obey(order: dict[str, Any]) -> dict[str, Any]:
        if order["do"] == "where":
            packages = [importlib.import_module(name) for name in PACKAGES]
            return {each.__name__: str(Path(each.__file__ or next(iter(each.__path__))).resolve()) for each in packages}
        if order["do"] == "pin":
            os.sched_setaffinity(0, {order["core"]})
            return {}
        if order["do"] == "run":
            return run(order)
        if order["do"] == "step":
            return watched(steps(order)[0])
        if order["do"] == "core":
            return core_figures(order)
        if order["do"] == "prepare":
            call = ready[order["name"]] = KINDS[order["kind"]](order)
            call()
            return {"seconds": min(timed(call, 2, 1))}
        gc.collect()
        gc.disable()  # a collection in the middle of one side's burst is no property of its code
        try:
            return {"seconds": timed(ready[order["name"]], order["times"], order["calls"])}
        finally:
            gc.enable()

    for line in sys.stdin:
        try:
            answer = obey(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
