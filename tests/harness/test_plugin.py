"""Cards, claims and options say what is wrong with what they are given."""

import pytest
from pydantic import Field

from harness import plugin
from harness.plugin import Card, Claim, Plugin, UsageError, did_you_mean


class Example(Plugin):
    card = Card("example", "-", "-", "-", 2026, "testing", "-")

    class Options(plugin.Options):
        leak: float = Field(0.5, description="leak", ge=0, le=1)
        update: str = "full"
        first: bool = False


def test_texts_become_the_type_of_the_field():
    options = Example({"leak": "0.25", "first": "true"}).options
    assert (options.leak, options.first, options.update) == (0.25, True, "full")


def test_options_cannot_be_changed_after_they_were_resolved():
    with pytest.raises(ValueError, match="frozen"):
        Example().options.leak = 0.1


def test_the_parts_of_a_tuple_are_given_with_strokes():
    class Layered(Plugin):
        card = Card("layered", "-", "-", "-", 2026, "direct", "-")

        class Options(plugin.Options):
            hidden: tuple[int, ...] = (100,)

    assert Layered({"hidden": "400/30"}).options.hidden == (400, 30)
    assert Layered({"hidden": (5,)}).options.hidden == Layered({"hidden": "5"}).options.hidden == (5,)
    with pytest.raises(UsageError, match="layered: option hidden.* = 'x'"):
        Layered({"hidden": "400/x"})


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UsageError, match=r"^example has no option 'leek'; did you mean 'leak'\?$"):
        Example({"leek": 1})


@pytest.mark.parametrize(("name", "value"), [("leak", "much"), ("leak", 2), ("first", "perhaps")])
def test_a_value_that_does_not_fit_names_option_and_value(name, value):
    with pytest.raises(UsageError) as error:
        Example({name: value})
    assert f"example: option {name} = {value!r}: " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_far_from_all_lists_what_is_allowed():
    assert did_you_mean("zzz", ["beta", "alpha"]) == "; allowed: alpha, beta"
    assert did_you_mean("alpa", ["beta", "alpha"]) == "; did you mean 'alpha'?"
    assert did_you_mean("x", []) == "; none is known"


@pytest.mark.parametrize(
    ("kind", "value", "against", "message"),
    [
        ("share", 1.0, None, "claim kind 'share' is unknown"),
        ("property", 1.0, None, "has no value"),
        ("value", None, None, "needs a value"),
        ("ratio", 2.0, None, "must say what it is against"),
        ("difference", 2.0, None, "must say what it is against"),
    ],
)
def test_a_claim_that_contradicts_itself_is_refused(kind, value, against, message):
    with pytest.raises(ValueError, match=message):
        Claim("test_accuracy", kind, value, "static/cifar10", "T=4", "Table 1", against=against)


def test_a_recipe_leaves_epochs_and_batch_size_to_every_budget_but_paper(toy_task, toy_method):
    class Published(toy_method):
        def recipe(self, task):
            return {"epochs": 300, "batch_size": 256, "lr": 0.5, "steps": 7}

    task = toy_task()
    small = Published(task, track="recipe")
    assert (small.training.epochs, small.training.batch_size, small.training.lr, small.steps) == (2, 5, 0.5, 7)
    task.budget_name = "paper"
    whole = Published(task, track="recipe")
    assert (whole.training.epochs, whole.training.batch_size) == (300, 256)
    assert Published(task).training == task.budget.training
