"""From texts of the command line to specs."""

import pytest
from pydantic import ValidationError

from harness.plugin import UsageError
from harness.spec import RunSpec, parse_settings, parse_variant, split_list


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("stbp", ["stbp"]),
        ("ottt[update=online,leak=0.5],stbp", ["ottt[update=online,leak=0.5]", "stbp"]),
        (" a , b[x=1] ,, c[y=2,z=3] ", ["a", "b[x=1]", "c[y=2,z=3]"]),
    ],
)
def test_commas_inside_brackets_do_not_split(text, parts):
    assert split_list(text) == parts


@pytest.mark.parametrize("text", ["lr", "lr=", "=1", "", "l r=1", "1a=2", "a-b=2"])
def test_what_is_not_key_equals_value_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="is not a setting; write key=value, for example lr=0.1"):
        parse_settings([text])


def test_a_value_may_contain_an_equals_sign():
    assert parse_settings(["rule=a=b", " lr = 0.1 "]) == {"rule": "a=b", "lr": "0.1"}


def test_a_variant_is_a_name_with_options():
    assert parse_variant("ottt[update=online, leak=0.5]") == ("ottt", {"update": "online", "leak": "0.5"})
    assert parse_variant(" ottt ") == ("ottt", {})
    assert parse_variant("ottt[]") == ("ottt", {})


@pytest.mark.parametrize("text", ["ottt[update=online", "ottt]", "[a=1]", "a[b[c=1]]", "a[b=1]c", ""])
def test_brackets_that_do_not_close_are_refused(text):
    with pytest.raises(UsageError, match=r"is not a method; write name or name\[option=value,...\]"):
        parse_variant(text)


def test_the_label_shows_options_training_settings_and_steps_in_order_of_name():
    spec = RunSpec(method="ottt", task="static/digits", options={"update": "online"}, training={"lr": 0.1, "epochs": 2}, steps=8)
    assert spec.label == "ottt[epochs=2,lr=0.1,update=online]@T=8"
    assert RunSpec(method="ottt", task="static/digits").label == "ottt"


def test_the_label_writes_booleans_as_users_do():
    assert RunSpec(method="rev_snn", task="static/digits", options={"reversible": False}).label == "rev_snn[reversible=false]"


def test_the_label_joins_the_parts_of_a_tuple_as_users_do():
    assert RunSpec(method="x", task="static/digits", options={"hidden": (400, 30)}).label == "x[hidden=400/30]"


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"steps": 0}, {"threads": 0}, {"precision": "fp8"}, {"track": "fair"}, {"nonsense": 1}])
def test_a_spec_refuses_values_that_make_no_sense(wrong):
    with pytest.raises(ValidationError):
        RunSpec(method="stbp", task="static/digits", **wrong)
