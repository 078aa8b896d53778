"""A few steps of a neuron as one compiled function each way, for tensors of one shape and layout; ``methods.nn.compiled`` loops over them.

The forward function writes its spikes straight into rows of the output and returns the state after its last step. The backward one is given
the same currents and the state before them: it runs the steps again, in registers, and goes back through them. So nothing is saved for it
but what went in, and no intermediate number of a step is ever written. It writes gradients of currents into rows of their tensor too, and
returns those of state and parameters::

    piece = Piece(step, sequences, state, parameters, wanted)       # sequences: for each, one tensor per step
    after = piece.forward(sequences, state, parameters, rows)
    before = piece.backward(sequences, state, parameters, g_rows, g_after, rows)

Both are traced by running the step function, whatever it is made of, under autograd, and go to TorchInductor as plain graphs: what
``torch.compile`` does after TorchDynamo, whose guards a caller that looks pieces up by shape and layout has no use for. A call of 8 steps
of 64 neurons, forward, takes 33 us with them and 9 without (Zen 4, two threads).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from methods.nn import sums

State = tuple[Tensor, ...]
Step = Callable[..., tuple[Tensor, State]]
Sequences = Sequence[Sequence[Tensor]]  # [sequence][step]
VECTORISED = {torch.ops.aten.isnan.default: lambda x: x != x}  # TorchInductor calls std::isnan for one number after the other


class UnsuitableError(Exception):
    """The step function cannot be compiled in pieces; the message says why."""


def run(step: Step, sequences: Sequences, state: State, parameters: Sequence[Tensor]) -> tuple[list[Tensor], State]:
    """Return the spikes of each step and the state after the last one, uncompiled."""
    spikes = []
    for now, *varying in zip(*sequences, strict=True):
        s, state = step(state, now, *parameters, *varying)
        spikes.append(s)
    return spikes, state


def compile_graph(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Return ``graph`` compiled for tensors like ``inputs``; products and sums are not contracted."""
    from torch._inductor import compile  # takes a second to import

    return compile(graph, list(inputs), options={"emulate_precision_casts": True})


class Piece:
    """The compiled forward and, where gradients are ``wanted``, backward function of some steps.

    ``wanted`` says of each sequence and each parameter, in that order, whether its gradient will be asked for; empty if no backward pass
    will come. Those of the floating-point parts of the state always are. ``spikes`` is an example of the spikes of one step, on the device
    "meta". Raises UnsuitableError where recomputing the steps would give something else.
    """

    def __init__(self, step: Step, sequences: Sequences, state: State, parameters: Sequence[Tensor], wanted: Sequence[bool] = ()) -> None:
        """Trace and compile for tensors like these; their values are not used."""
        self._step, self._counts = step, (len(sequences), len(sequences[0]), len(state), len(parameters))
        self._wanted = wanted[: len(sequences)], wanted[len(sequences) :]
        inputs = [part.detach() for part in (*(row for rows in sequences for row in rows), *state, *parameters)]
        # Tracing runs the steps: hooks of the caller on saved tensors must not see that, nor its random numbers be used up.
        gpus = {part.device for part in inputs if part.is_cuda}
        hidden = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
        with torch.no_grad(), hidden, torch.random.fork_rng(gpus):
            sequences, state, parameters, _ = self._split(inputs)
            spikes, after = run(step, [rows[:1] for rows in sequences], state, parameters)
            self.spikes = torch.empty_like(spikes[0], device="meta")
            rows = [torch.empty_like(spikes[0]) for _ in sequences[0]]
            self._forward = _compiled(self._trace_forward, [*inputs, *rows], bool(wanted))
            if not wanted:
                return
            ends = [torch.empty_like(part) for part in after if part.is_floating_point()]
            self._ends = [end.stride() for end in ends]
            found = [torch.empty_like(row) for rows, want in zip(sequences, self._wanted[0], strict=True) if want for row in rows]
            self._backward = _compiled(self._trace_backward, [*inputs, *rows, *ends, *found], True)

    def forward(self, sequences: Sequences, state: State, parameters: Sequence[Tensor], rows: Sequence[Tensor]) -> State:
        """Write the spikes into ``rows``, one tensor per step, and return the state after the last step."""
        return tuple(self._forward(*(row for rows in sequences for row in rows), *state, *parameters, *rows))

    def backward(
        self,
        sequences: Sequences,
        state: State,
        parameters: Sequence[Tensor],
        g_rows: Sequence[Tensor],
        g_after: Sequence[Tensor],
        found: Sequences,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the gradients of the floating-point parts of the state before, and of the parameters for which they are wanted.

        ``g_rows`` are the gradients of the spikes, laid out as ``spikes`` is; ``g_after`` those of the floating-point parts of the state
        after. The gradients of the sequences for which they are wanted are written into ``found``.
        """
        ends = [laid_out(g, stride) for g, stride in zip(g_after, self._ends, strict=True)]
        inputs = *(row for rows in sequences for row in rows), *state, *parameters, *g_rows, *ends, *(row for rows in found for row in rows)
        grads = list(self._backward(*inputs))
        parameters_from = len(grads) - sum(self._wanted[1])
        return grads[:parameters_from], grads[parameters_from:]

    def _split(self, inputs: Sequence[Tensor]) -> tuple[list[Sequence[Tensor]], State, Sequence[Tensor], Sequence[Tensor]]:
        sequences, steps, states, parameters = self._counts
        rows, rest = inputs[: sequences * steps], inputs[sequences * steps :]
        found = [rows[i * steps : (i + 1) * steps] for i in range(sequences)]
        return found, tuple(rest[:states]), rest[states : states + parameters], rest[states + parameters :]

    def _trace_forward(self, *inputs: Tensor) -> State:
        sequences, state, parameters, rows = self._split(inputs)
        spikes, after = run(self._step, sequences, state, parameters)
        for row, s in zip(rows, spikes, strict=True):
            row.copy_(s)
        return after

    def _trace_backward(self, *inputs: Tensor) -> list[Tensor]:
        sequences, state, parameters, rest = self._split(inputs)
        steps, ends = self._counts[1], len(self._ends)
        g, g_after, rows = rest[:steps], rest[steps : steps + ends], rest[steps + ends :]
        leaves = [
            [[row.detach().requires_grad_(want) for row in sequence] for sequence, want in zip(sequences, self._wanted[0], strict=True)],
            tuple(part.detach().requires_grad_(part.is_floating_point()) for part in state),
            [p.detach().requires_grad_(want) for p, want in zip(parameters, self._wanted[1], strict=True)],
        ]
        with torch.enable_grad():
            spikes, after = run(self._step, *leaves)
        outputs = list(zip([*spikes, *(part for part in after if part.is_floating_point())], [*g, *g_after], strict=True))
        outputs = [pair for pair in outputs if pair[0].requires_grad]
        wrt = [leaf for leaf in (*(row for rows in leaves[0] for row in rows), *leaves[1], *leaves[2]) if leaf.requires_grad]
        grads = torch.autograd.grad([o for o, _ in outputs], wrt, [g for _, g in outputs], allow_unused=True, materialize_grads=True)
        for row, grad in zip(rows, grads, strict=False):
            row.copy_(grad)
        return list(grads[len(rows) :])


def laid_out(tensor: Tensor, strides: Sequence[int]) -> Tensor:
    """Return ``tensor`` if its strides are these, else a copy whose strides are."""
    if all(a == b or size == 1 for a, b, size in zip(tensor.stride(), strides, tensor.shape, strict=True)):
        return tensor
    return tensor.new_empty_strided(tensor.shape, strides).copy_(tensor)


def _compiled(function: Callable[..., Any], inputs: Sequence[Tensor], again: bool) -> Callable[..., Sequence[Tensor]]:
    """Trace ``function`` and compile it; ``again`` is whether its steps will be run twice."""
    graph = make_fx(function, decomposition_table=VECTORISED)(*inputs)
    for node in graph.graph.nodes:
        if again and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise UnsuitableError(f"a step draws random numbers ({node.target}), and the backward pass runs it again")
        if node.op == "get_attr" and getattr(getattr(graph, node.target, None), "requires_grad", False):
            raise UnsuitableError("the step function closes over a tensor that takes a gradient; it must be among the parameters")
    sums.merge(graph)
    return compile_graph(graph, inputs)
