"""Training memory: the small net with the neurons of each library, and online rules as T grows. Each is measured in a process of its own.

``python -m suites.regression.peers.memory net NAME STEPS`` and ``... rule METHOD STEPS`` print what was found as JSON; the command of the
package starts them. ``saved`` counts what autograd keeps for the backward pass, ``resident`` is the growth of the resident set at its peak
in a training step, with the allocator returning what is freed (CPU only); gradients and momenta belong to it, weights do not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from harness.allocator import return_memory
from harness.loop import train
from harness.meters.memory import SavedTensors, distinct_bytes, optimizer_bytes
from harness.meters.resident import HostPeak
from harness.meters.training import TrainingMeter
from harness.registry import Registries
from harness.task import Backbone, Batch, Budget, Data, TaskCard, Training
from suites.regression.peers.contenders import contenders
from suites.regression.peers.lif import IMAGES, Net
from suites.static_vision import Digits

RULES = ("ottt", "stbp")  # an online rule, and what it avoids
STEPS = (4, 16, 64)
BATCH = 16


class Noise(Digits):
    """Random images of 3 x 32 x 32 pixels, of ten classes: what a step of a rule needs does not depend on what it sees."""

    card = TaskCard("peers/noise", "Random images", "random numbers", "CC0", "none", "this file")
    input_shape = IMAGES[1:]
    budgets = {"smoke": Budget(Training(epochs=1, batch_size=BATCH, optimizer="sgd", lr=1e-3), Backbone("conv", (16, 32)))}

    def load(self, split: str) -> Data:
        """Return three batches to train on, and a sample to evaluate."""
        size = 3 * BATCH if split == "train" else 1
        return Data(torch.randn(size, *self.input_shape), torch.arange(size) % 10)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch as it is."""
        return batch


def net_memory(name: str, steps: int) -> dict[str, Any]:
    """Return the memory of a training step of the small net with the neurons of contender ``name``."""
    (contender,) = (each for each in contenders("cpu")[0] if each.name == name)
    net = Net(contender.make, contender.parts)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    images, labels = torch.randn(steps, *IMAGES), torch.randint(10, IMAGES[:1])

    def step() -> None:
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step()
    with SavedTensors(net) as saved:
        step()
    return_memory()
    gradients: list[Tensor] = [p.grad for p in net.parameters() if p.grad is not None]
    held = distinct_bytes(gradients) + optimizer_bytes(optimizer)
    del gradients
    with HostPeak(held) as host:
        step()
    return {"saved": saved.peak, "resident": host.growth_bytes}


def rule_memory(name: str, steps: int) -> dict[str, Any]:
    """Return the memory of a training step of a method on random images."""
    method = Registries().methods.load(name)(Noise("smoke"), steps=steps)
    net = method.build()
    meter = TrainingMeter(net, torch.device("cpu"))
    train(method, net, 0, observer=meter)
    found = meter.result()
    return {"saved": found.saved_bytes, "resident": found.peak_rss_growth_bytes}


def measured(what: str, name: str, steps: int) -> dict[str, Any]:
    """Return what a fresh process found; raise RuntimeError with the end of its output if it failed."""
    command = [sys.executable, "-m", "suites.regression.peers.memory", what, name, str(steps), str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} at {steps} steps: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare_nets(names: list[str], steps: int) -> str:
    """Return the table of the nets' memory in MB, and how much of it that of the first takes."""
    found = {name: measured("net", name, steps) for name in names}
    rows = []
    for name, figures in found.items():
        cells = [[_megabytes(figures[part]), _ratio(found[names[0]][part], figures[part])] for part in ("saved", "resident")]
        rows.append([name, *cells[0], *cells[1]])
    return tabulate(
        rows, [f"memory of the net, T={steps}", "saved, MB", "ours / this", "resident, MB", "ours / this"], disable_numparse=True
    )


def compare_rules(steps: tuple[int, ...] = STEPS) -> str:
    """Return the table of the rules' memory in MB, and the last over the first."""
    rows = []
    for name in RULES:
        found = [measured("rule", name, each) for each in steps]
        for part in ("saved", "resident"):
            figures = [each[part] for each in found]
            rows.append([name, part, *map(_megabytes, figures), _ratio(figures[-1], figures[0])])
    return tabulate(rows, ["memory of a rule, MB", "", *(f"T={each}" for each in steps), "last / first"], disable_numparse=True)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"


def _ratio(size: int | None, other: int | None) -> str:
    return "-" if size is None or not other else f"{size / other:.2f}"


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    print(json.dumps({"net": net_memory, "rule": rule_memory}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
