"""Which layers are binarised: the greedy rule and its schedule. Test 5 of the card."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from methods.nn.binary_choice import candidates, choose
from methods.nn.layer_choice import LayerChoice
from methods.nn.local_binary import LocalBinary, LocalBinaryLinear, weight_error

SIZES = {"first": (40, 10), "a": (20, 8), "b": (30, 20), "c": (64, 16), "d": (12, 40), "narrow": (1, 16), "last": (30, 10)}


def layers() -> dict[str, LocalBinary]:
    torch.manual_seed(0)
    found = {name: LocalBinaryLinear(*size, bias=False) for name, size in SIZES.items()}
    found["first"].protected = found["last"].protected = True
    return found


def storage(found: dict[str, LocalBinary], binary) -> int:
    return sum(layer.bits(name in binary) for name, layer in found.items())


SCORES = {"first": -1.0, "a": 0.3, "b": 0.2, "c": 0.4, "d": 0.1, "narrow": 0.0, "last": -2.0}


def test_bits_are_one_per_weight_and_32_per_scale():
    layer = layers()["b"]
    assert (layer.bits(False), layer.bits(True)) == (32 * 600, 600 + 32 * 20)


def test_protected_layers_and_those_that_would_grow_are_never_chosen():
    assert set(candidates(layers())) == {"a", "b", "c", "d"}
    assert choose(layers(), SCORES, 1.0) == ["d", "b", "a", "c"]


def test_target_zero_selects_none():
    assert choose(layers(), SCORES, 0.0) == []


@pytest.mark.parametrize("target", [0.2, 0.5, 0.6])
def test_storage_falls_to_the_target_with_the_fewest_of_the_cheapest_layers(target):
    found = layers()
    chosen = choose(found, SCORES, target)
    full = storage(found, ())
    assert storage(found, chosen) <= (1 - target) * full < storage(found, chosen[:-1])
    others = [name for name in candidates(found) if name not in chosen]
    assert max(SCORES[name] for name in chosen) < min((SCORES[name] for name in others), default=1.0)


def test_what_is_chosen_is_cheaper_than_any_other_choice_of_as_many_layers():
    found = layers()
    chosen = choose(found, SCORES, 0.5)
    total = sum(SCORES[name] for name in chosen)
    assert all(total <= sum(SCORES[name] for name in other) for other in combinations(candidates(found), len(chosen)))


def test_a_layer_above_the_limit_ends_the_choice():
    losses = {"a": 0.1, "b": 0.5, "c": 0.1, "d": 0.2}
    assert choose(layers(), SCORES, 1.0, losses, limit=0.4) == ["d"]
    assert choose(layers(), SCORES, 1.0, losses, limit=0.5) == ["d", "b", "a", "c"]


@pytest.mark.parametrize(
    ("epochs", "warmup", "freeze", "first", "frozen"),
    [(100, 0.1, 0.6, 10, 60), (16, 0.1, 0.6, 2, 10), (1, 0.1, 0.6, 0, 1), (4, 0.5, 0.5, 2, 3)],
)
def test_choices_are_made_from_warm_up_to_freeze_and_once_at_least(epochs, warmup, freeze, first, frozen):
    choice = LayerChoice(layers(), SCORES, 0.2, warmup=warmup, freeze=freeze)
    stays = [choice.before(epoch, epochs) for epoch in range(epochs)]
    assert list(choice.chosen) == list(range(first, frozen))
    assert stays == [epoch >= frozen for epoch in range(epochs)]


def observe(choice: LayerChoice, errors: dict[str, float]) -> None:
    """Gradients that make A what is wanted."""
    used = {}
    for name, layer in choice.estimator.layers.items():
        gradient = torch.zeros_like(layer.weight)
        difference = choice.estimator.signed_error(layer, nn.functional.one_hot(torch.tensor(0), layer.weight.numel()).view_as(gradient))
        gradient.view(-1)[0] = errors[name] / difference
        used[layer] = torch.empty_like(gradient).requires_grad_()
        used[layer].grad = gradient
    choice.estimator.observe(used)


def test_the_score_is_the_predicted_loss_per_weight():
    found = layers()
    choice = LayerChoice(found, "loss", 0.1)
    observe(choice, {"a": 1.6, "b": 5.4, "c": 20.48, "d": 4.32})  # per weight .010, .009, .020, .009 + a little
    choice.before(1, 10)
    assert choice.chosen[1][0] == "b"
    assert choice.errors[1] == pytest.approx({"a": 1.6, "b": 5.4, "c": 20.48, "d": 4.32}, rel=1e-5)
    assert [name for name, layer in found.items() if layer.binary] == choice.chosen[1]


def test_layers_are_chosen_afresh_at_each_epoch():
    found = layers()
    choice = LayerChoice(found, "loss", 0.1)
    observe(choice, {"a": 1.0, "b": 0.0, "c": 1000.0, "d": 1.0})
    choice.before(1, 10)
    for _ in range(60):
        observe(choice, {"a": 1.0, "b": 1000.0, "c": 0.0, "d": 1.0})
    choice.before(2, 10)
    assert (choice.chosen[1], choice.chosen[2]) == (["b"], ["c"])
    assert found["c"].binary and not found["b"].binary


def test_before_any_iteration_and_by_eps_the_errors_of_the_weights_decide():
    for by in ("loss", "eps"):
        found = layers()
        choice = LayerChoice(found, by, 1.0)
        choice.before(0, 1)
        errors = [weight_error(found[name].weight).item() for name in choice.chosen[0]]
        assert errors == sorted(errors) and len(errors) == 4


def test_the_estimator_is_there_where_and_while_it_can_change_the_choice():
    assert LayerChoice(layers(), "eps", 0.2).estimator is None
    assert LayerChoice(layers(), SCORES, 0.2).estimator is None
    assert LayerChoice({}, "loss", 0.2).estimator is None
    assert LayerChoice(layers(), "eps", 0.2, limit=1.0).estimator is not None
    choice = LayerChoice(layers(), "loss", 0.2)
    there = []
    for epoch in range(10):
        choice.before(epoch, 10)
        there.append(choice.estimator is not None)
    assert there == [True] * 5 + [False] * 5
