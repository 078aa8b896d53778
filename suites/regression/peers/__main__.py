"""Our neurons against the libraries people use, in one process and interleaved: the command.

``python -m suites.regression.peers [PART ...] [--long] [--threads N] [--rounds N]`` prints, part by part, milliseconds (medians) and how
many times longer each contender takes than ours. Parts: "layer" and "net" (``peers.lif``), "glif", "recurrence", and on the CPU "memory"
(of the net) and "online" (rules as T grows), each of which runs in processes of their own. What is not installed (the extra ``peers``) is
left out with a line. What a contender does at its first call (compiling) is printed apart.

The process keeps the memory that it frees (``harness.allocator``), as a run of the harness does: for all contenders alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from harness.allocator import keep_memory, use_huge_pages
from suites.regression.peers import glif, lif, memory, recurrence
from suites.regression.peers.contenders import contenders
from suites.regression.peers.timing import Columns, faster, table

PARTS = ("layer", "net", "glif", "recurrence", "memory", "online")
MINE, THEIRS = ("ours, auto", "ours, compiled"), ("SpikingJelly", "snnTorch", "ReLU")


def compare_lif(what: str, lengths: Sequence[int], given: argparse.Namespace) -> str:
    """Return the tables of the layer or the net at these numbers of steps."""
    who, _ = contenders(given.device)
    names = [each.name for each in who]
    columns = {f"{what}, T={n}": lif.compare(who, what, n, given.rounds, given.device, given.size) for n in lengths}
    return f"{table(names, columns)}\n\n{faster(names, columns, MINE, THEIRS)}"


def report(part: str, given: argparse.Namespace) -> str:
    """Return the tables of a part."""
    if part == "layer":
        return compare_lif("layer", given.steps or [4, 16, 64, *([256] if given.long else [])], given)
    if part == "net":
        return compare_lif("net", given.steps or [4, 16], given)
    if part == "memory":
        names = [each.name for each in contenders("cpu")[0] if each.name != "norse"]
        return "\n\n".join(memory.compare_nets(names, n) for n in given.steps or [16])
    if part == "online":
        return memory.compare_rules(tuple(given.steps or memory.STEPS))
    columns: Columns = {}
    for n in given.steps or ([64] if part == "glif" else recurrence.LENGTHS):
        measure = (
            glif.measure(n, given.rounds, given.device, given.size) if part == "glif" else recurrence.measure(n, given.rounds, given.device)
        )
        names, found = measure
        columns |= found
    return table(names, columns)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m suites.regression.peers", description="Our neurons against other libraries'.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; default: all")
    parser.add_argument("--long", action="store_true", help="the layer at 256 steps too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9, help="timed calls of each contender")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, nargs="+", help="numbers of time steps, instead of those of each part")
    parser.add_argument("--size", type=float, default=1.0, help="fraction of the batch")
    given = parser.parse_args(arguments)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"part {unknown[0]!r} is unknown; allowed: {', '.join(PARTS)}")
    torch.set_num_threads(given.threads)
    use_huge_pages()
    if keep_memory():
        print("all contenders in one process, which keeps the memory that it frees")
    for line in contenders(given.device)[1]:
        print(line)
    for part in given.parts or (PARTS if given.device == "cpu" else PARTS[:4]):
        print(f"\n{report(part, given)}", flush=True)


if __name__ == "__main__":
    main()
