"""Ten thousand records, and how long reports take to read them: ``python -m suites.regression.many_records``.

Records are those of ``results/reference`` again, with other methods, seeds, keys and figures, so that sizes and shapes are real::

    write(folder, 10_000)                      # 25 tasks x 40 methods x 10 seeds
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.registry import Registries

REFERENCE = Path("results/reference")
TASKS, SEEDS = 25, 10
REPORTS = {
    "table": ["table"],
    "table, github": ["table", "--format", "github"],
    "claims": ["claims"],
    "site": ["site", "--output"],
}


def write(folder: Path, count: int, reference: Path = REFERENCE) -> None:
    """Write ``count`` records to ``folder``, the same ones every time."""
    chance = random.Random(0)
    samples = _samples(reference)
    names = Registries().methods.names()
    methods = [*names, *(f"{name}_again" for name in names)][: -(-count // (TASKS * SEEDS))]
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for task in list(samples)[:TASKS]:
        for place, method in enumerate(methods):
            sample = samples[task][place % len(samples[task])]
            for seed in range(SEEDS):
                if written == count:
                    return
                record = _changed(sample, method, seed, chance)
                (folder / f"{record['key']}.json").write_text(json.dumps(record), encoding="utf-8")
                written += 1


def _samples(reference: Path) -> dict[str, list[dict[str, Any]]]:
    """Return task -> finished records of it, those of the smoke budget on the CPU; tasks with most records first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(reference.rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("status") == "ok":
            found.setdefault(record["spec"]["task"], []).append(record)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _changed(sample: dict[str, Any], method: str, seed: int, chance: random.Random) -> dict[str, Any]:
    """Return a record of another method and seed whose figures are those of the sample within some per cent."""
    record = copy.deepcopy(sample)
    record["key"] = hashlib.sha256(f"{record['spec']['task']} {method} {seed}".encode()).hexdigest()[:20]
    record["label"] = method
    record["spec"] |= {"method": method, "seed": seed, "options": {}, "training": {}, "steps": None, "samples": None, "depth": None}
    record["spec"]["budget"] = "smoke"
    for part in ("test", "validation"):
        record["accuracy"][part] = max(0.0, record["accuracy"][part] * chance.uniform(0.9, 1.0))
    bits = list(record["accuracy"]["correct"])
    for place in chance.sample(range(len(bits)), k=len(bits) // 20):
        bits[place] = chance.choice("0123456789abcdef")
    record["accuracy"]["correct"] = "".join(bits)
    for name, value in record["time"].items():
        if isinstance(value, float):
            record["time"][name] = value * chance.uniform(0.9, 1.1)
    return record


def main() -> None:
    """Print the seconds of each report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--report", choices=REPORTS, action="append")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        write(records, given.count)
        size = sum(path.stat().st_size for path in records.iterdir())
        print(f"{given.count} records, {size / 2**20:.0f} MiB")
        for name in given.report or REPORTS:
            arguments = [*REPORTS[name], *([f"{folder}/site"] if name == "site" else [])]
            start = time.perf_counter()
            command = [sys.executable, "-m", "harness.cli", *arguments, "--results", str(records)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            print(f"{name}: {time.perf_counter() - start:.2f} s, exit {done.returncode}, {len(done.stdout):,} characters")
        pages = [path for path in (Path(folder) / "site").rglob("*") if path.is_file()]
        if pages:
            print(f"site: {sum(path.stat().st_size for path in pages) / 2**20:.1f} MiB in {len(pages)} files")


if __name__ == "__main__":
    main()
