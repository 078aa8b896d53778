"""Which row each row of a table is compared with."""

from __future__ import annotations

import pytest

from harness.registry import Registries
from harness.report.baselines import baselines


@pytest.fixture(scope="module")
def registries():
    return Registries()


def test_own_is_what_the_card_names(registries):
    assert baselines("own", ["glif", "sew_resnet[connect=and]"], registries) == {
        "glif": "glif[neuron=lif]",
        "sew_resnet[connect=and]": "spiking_resnet",
    }


def test_the_baseline_is_cut_down_and_trained_alike(registries):
    label = "glif[depth=2,epochs=3,granularity=layer]@T=8"
    assert baselines("own", [label], registries)[label] == "glif[depth=2,epochs=3,neuron=lif]@T=8"
    assert baselines("stbp", [label], registries)[label] == "stbp[depth=2,epochs=3]@T=8"


def test_methods_without_a_baseline_and_strangers_are_left_out(registries):
    assert baselines("own", ["ann", "not_here", "x[a=<b>"], registries) == {}
