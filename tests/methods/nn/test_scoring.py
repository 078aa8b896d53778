"""Scores of a method's own report against the harness's evaluation, and spikes step by step against its meter."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from harness.evaluate import evaluate
from harness.registry import Registries
from methods.nn.scoring import score
from methods.stbp import Stbp


def bound(name, samples=20):
    task = Registries().tasks.load(name)()
    task.budget = replace(task.budget, test_samples=samples)
    torch.manual_seed(0)
    method = Stbp(task)
    return method, method.build()


@pytest.mark.parametrize("name", ["static/digits", "sequences/copy-memory", "sequences/adding", "detection/digit-scenes"])
def test_scores_are_those_of_the_harness(name):
    method, net = bound(name)
    expected = evaluate(method, net, "test")
    final, curve = score(method.task, "test", partial(method.predict, net.eval()))
    assert final == expected.metrics[method.task.metric]
    assert curve == pytest.approx(expected.curve, abs=0, nan_ok=True)


def test_a_limit_scores_the_first_samples():
    method, net = bound("static/digits", 20)
    few = bound("static/digits", 7)[0]
    net.train()  # running statistics of a new network say nothing
    expected = score(few.task, "test", partial(method.predict, net))
    assert score(method.task, "test", partial(method.predict, net), limit=7) == expected
    assert score(method.task, "test", partial(method.predict, net)) != expected
