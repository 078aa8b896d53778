"""Sums of a traced graph, taken late and from the inside: what makes gradients of parameters cheap in a compiled piece.

The gradient of a parameter that many neurons share is a sum over them at each step, and a sum of those: ``sum(a) + sum(b) + ...``. Taken
literally that is a reduction per step and parameter. ``sum(a + b + ...)`` is one, and the additions are done where a and b are, in
registers. A sum over a batch and the pixels of a channel is taken over the pixels first: those are the inner loop of the code that computes
what is summed, so that nothing but the sums of each image and channel is written::

    merge(graph)        # in place

Neither changes more than the order in which numbers are added.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, GraphModule, Node

aten = torch.ops.aten
LINEAR = {aten.sum.default, aten.sum.dim_IntList, aten.view.default, aten.neg.default}  # in their first argument


def merge(module: GraphModule) -> None:
    """Rewrite ``f(a) + f(b)`` as ``f(a + b)`` where f has a sum in it, and sums over many dimensions as one over the last ones first."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is aten.add.Tensor and len(node.args) == 2 and not node.kwargs and all(isinstance(x, Node) for x in node.args):
            a, b = node.args
            depth = _common(a, b)
            if depth:
                with graph.inserting_before(node):
                    _replace(node, _late(graph, a, b, depth))
    for node in list(graph.nodes):
        if node.target is aten.sum.dim_IntList:
            _inside_first(graph, node)
    graph.eliminate_dead_code()
    module.recompile()


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape)


def _dtype(node: Node) -> torch.dtype:
    return node.meta["tensor_meta"].dtype


def _common(a: Node, b: Node) -> int:
    """Return how many operations, from the end, are the same in both and used nowhere else, up to the first sum; 0 without one."""
    depth, last = 0, 0
    while isinstance(a, Node) and isinstance(b, Node) and a is not b:
        alone = len(a.users) == len(b.users) == 1
        if not alone or a.target not in LINEAR or a.target is not b.target or a.args[1:] != b.args[1:] or a.kwargs != b.kwargs:
            break
        if _shape(a.args[0]) != _shape(b.args[0]) or _dtype(a.args[0]) != _dtype(b.args[0]):
            break
        depth += 1
        if a.target in (aten.sum.default, aten.sum.dim_IntList):
            last = depth
        a, b = a.args[0], b.args[0]
    return last


def _late(graph: Graph, a: Node, b: Node, depth: int) -> Node:
    if depth == 0:
        found = graph.call_function(aten.add.Tensor, (a, b))
    else:
        found = graph.call_function(a.target, (_late(graph, a.args[0], b.args[0], depth - 1), *a.args[1:]), dict(a.kwargs))
    found.meta = dict(a.meta)
    return found


def _inside_first(graph: Graph, node: Node) -> None:
    rank, keep = len(_shape(node.args[0])), len(node.args) > 2 and node.args[2]
    summed = {d % rank for d in node.args[1]}
    inner = rank
    while inner - 1 in summed:
        inner -= 1
    last, others = list(range(inner, rank)), sorted(d for d in summed if d < inner)
    if not keep or not last or not others:
        return
    with graph.inserting_before(node):
        first = graph.call_function(aten.sum.dim_IntList, (node.args[0], last, True), dict(node.kwargs))
        _replace(node, graph.call_function(aten.sum.dim_IntList, (first, others, True), dict(node.kwargs)))


def _replace(node: Node, other: Node) -> None:
    other.meta = other.meta or dict(node.meta)
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
