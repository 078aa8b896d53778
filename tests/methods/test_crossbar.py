"""The probe ``crossbar`` on networks of all kinds."""

from __future__ import annotations

import copy
import json
from statistics import stdev

import pytest
import torch
from torch import nn

from harness.loop import train
from harness.metrics import TASK_METRICS
from harness.plugin import UsageError
from harness.registry import Registries
from methods.crossbar import Crossbars
from methods.nn.crossbar_array import Crossbar, Held
from methods.nn.crossbar_devices import Devices
from methods.nn.crossbar_read import Read, effective_weight, in_order, on_crossbars
from methods.nn.synapse import Conv2d

IDEAL = {"driver": 0, "sense": 0, "row": 0, "column": 0, "variation": "0"}
SMALL = {"sizes": "16", "variation": "0.2", "programmings": 2, "samples": 24, "refit_samples": 32, "inspected": 8}


def made(name: str, task: str = "static/digits", **settings):
    registries = Registries()
    torch.manual_seed(0)
    method = registries.methods.load(name)(registries.task(task), **settings)
    return method, method.build()


@pytest.fixture(scope="module")
def trained():
    method, net = made("stbp", steps=3, training={"epochs": 2})
    train(method, net, 0)
    return method, net.eval()


@pytest.fixture(scope="module")
def figures(trained):
    return Crossbars({**SMALL, "sizes": "16/64", "variation": "0/0.2"}).measure(*trained)


def test_without_any_effect_accuracy_and_spikes_are_those_of_software(trained):
    found = Crossbars({**SMALL, **IDEAL, "modes": "raw/calibrated"}).measure(*trained)
    for mode in ("raw", "calibrated"):
        result = found["crossbars"]["16"]["0.0"][mode]
        assert result["metrics"] == [found["software"]["metric"]]
        assert result["curve"] == found["software"]["curve"]
        assert (result["drop"], result["spikes"]["deviating"], result["spikes"]["rate_change"]) == (0, 0, 0)


@torch.no_grad()
def test_weights_that_went_through_the_mapping_give_the_same_answers(trained):
    method, net = trained
    devices, reads = Devices(), {}
    for module in [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]:
        weight = effective_weight(module)
        mapped = torch.empty_like(weight).copy_(devices.weights(*devices.conductances(weight)))
        reads[module] = Read(Held(Crossbar(), weight, 1, mapped))
    inputs = next(method.task.batches("test", 64, 64)).inputs
    before = method.predict(net, inputs).outputs
    with on_crossbars(reads):
        after = method.predict(net, inputs).outputs
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    assert torch.equal(after.argmax(-1), before.argmax(-1))


def test_weights_buffers_classes_and_modes_are_left_as_they_were(trained):
    method, net = trained[0], copy.deepcopy(trained[1])
    net.train()
    state, kinds, random = copy.deepcopy(net.state_dict()), [type(m) for m in net.modules()], torch.get_rng_state()
    Crossbars({**SMALL, "adc_bits": 6, "read_noise": 0.05}).measure(method, net)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert [type(m) for m in net.modules()] == kinds
    assert all(module.training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_means_and_drops_are_those_of_the_programmings(figures):
    found = figures["crossbars"]["64"]["0.2"]["raw"]
    assert len(found["metrics"]) == 2
    assert found["mean"] == pytest.approx(sum(found["metrics"]) / 2)
    assert found["std"] == pytest.approx(stdev(found["metrics"]))
    assert found["drop"] == pytest.approx(figures["software"]["metric"] - found["mean"])
    assert found["curve"][-1] == pytest.approx(found["mean"])
    assert len(found["curve"]) == len(figures["software"]["curve"]) == 3
    assert len(figures["crossbars"]["64"]["0.0"]["raw"]["metrics"]) == 1  # nothing is drawn


def test_larger_tiles_lose_more_current_in_every_layer(figures):
    small, large = (figures["crossbars"][size]["0.0"] for size in ("16", "64"))
    assert len(figures["digital"]) == 1 and figures["digital"][0] not in small["layers"]
    for name, layer in small["layers"].items():
        assert 0 < layer["factor"] <= large["layers"][name]["factor"]
        assert 1 < layer["gain"] <= large["layers"][name]["gain"]
    assert small["factor"] < large["factor"]
    assert small["residual"] < large["residual"]
    assert small["tiles"] > large["tiles"]


def test_spikes_deviate_in_layers_after_the_digital_one_only(figures):
    layers = figures["crossbars"]["64"]["0.2"]["raw"]["spikes"]["layers"]
    first, *others = layers.values()
    assert first["deviating"] == 0
    assert all(layer["deviating"] > 0 and 1 <= layer["first_step"] <= 3 for layer in others)


def test_the_first_layer_goes_on_crossbars_too_where_asked(trained):
    found = Crossbars({**SMALL, "modes": "raw", "first_layer": "crossbar"}).measure(*trained)
    assert found["digital"] == []
    layers = found["crossbars"]["16"]["0.2"]["raw"]["spikes"]["layers"]
    assert next(iter(layers.values()))["deviating"] > 0


def test_harsh_drivers_ruin_raw_currents_and_what_is_done_about_it_helps(trained):
    harsh = {**SMALL, "sizes": "64", "variation": "0", "driver": 1000, "sense": 1000, "samples": 200, "refit_samples": 200}
    found = Crossbars(harsh).measure(*trained)["crossbars"]["64"]["0.0"]
    assert found["raw"]["spikes"]["rate_change"] < -0.1
    assert found["raw"]["drop"] > 0.1
    for mode in ("calibrated", "bn_refit"):
        assert found[mode]["drop"] < found["raw"]["drop"] - 0.05


def test_runs_repeat_and_other_seeds_draw_other_devices(trained):
    def metrics(seed: int) -> list[float]:
        rough = {**SMALL, "variation": "0.6", "samples": 100, "programmings": 3, "modes": "raw", "seed": seed}
        return Crossbars(rough).measure(*trained)["crossbars"]["16"]["0.6"]["raw"]["metrics"]

    assert metrics(0) == metrics(0)
    assert metrics(0) != metrics(1)


@pytest.mark.parametrize("options", [{"levels": 2}, {"stuck_on": 0.1}, {"stuck_off": 0.3}, {"read_noise": 0.5}, {"adc_bits": 2}])
def test_every_effect_alone_changes_what_is_answered(trained, options):
    found = Crossbars({**SMALL, **IDEAL, "modes": "raw", "first_layer": "crossbar", **options}).measure(*trained)
    assert found["crossbars"]["16"]["0.0"]["raw"]["spikes"]["deviating"] > 0


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("ann", "static/digits"),
        ("ottt", "static/digits"),
        ("bntt", "static/digits"),
        ("diet_snn", "static/digits"),
        ("eventprop", "static/digits"),
        ("stbp", "sequences/digits-pixels"),
        ("stbp", "detection/digit-scenes"),
        ("stbp", "events/digits-saccade"),
    ],
)
def test_networks_of_all_kinds_of_methods_and_tasks_are_probed(name, task):
    found = Crossbars({**SMALL, "sizes": "64", "samples": 4, "inspected": 2, "programmings": 1, "modes": "raw"}).measure(*made(name, task))
    (row,) = Crossbars.rows(found)
    assert row["non_ideality"] > 0
    json.dumps(found)


def test_a_drop_is_what_is_worse_also_where_less_is_better(monkeypatch, trained):
    monkeypatch.setitem(TASK_METRICS, "accuracy", ("error", "", "lower", "as if it were an error"))
    found = Crossbars({**SMALL, "modes": "raw"}).measure(*trained)
    result = found["crossbars"]["16"]["0.2"]["raw"]
    assert result["drop"] == pytest.approx(result["mean"] - found["software"]["metric"])


def test_modes_without_use_are_left_out():
    found = Crossbars({**SMALL, "programmings": 1}).measure(*made("ottt"))  # it has no batch normalisation
    assert [row["mode"] for row in Crossbars.rows(found)] == ["raw", "calibrated"]


def test_a_network_of_one_layer_says_why_it_cannot_be_probed(toy_task, toy_method):
    method, net = toy_method(toy_task()), nn.Linear(3, 2)
    found = Crossbars().measure(method, net)
    assert "first_layer=crossbar" in found["cannot"]
    assert Crossbars.rows(found) == []


def test_noise_of_reads_has_no_meaning_for_spike_times():
    assert "read_noise" in Crossbars({**SMALL, "read_noise": 0.1}).measure(*made("eventprop"))["cannot"]


def test_rows_are_in_percent_and_every_column_has_a_heading(figures):
    rows = Crossbars.rows(figures)
    assert len(rows) == 2 * 2 * 3
    assert {(row["size"], row["variation"]) for row in rows} == {(s, v) for s in ("16", "64") for v in ("0.0", "0.2")}
    assert all(set(row) == set(Crossbars.headings) for row in rows)
    raw = next(row for row in rows if (row["size"], row["variation"], row["mode"]) == ("64", "0.2", "raw"))
    assert raw["drop"] == pytest.approx(100 * figures["crossbars"]["64"]["0.2"]["raw"]["drop"])


@torch.no_grad()
def test_synapses_come_in_the_order_in_which_they_run():
    net = nn.ModuleDict({"late": Conv2d(2, 2, 1), "never": nn.Linear(2, 2), "early": Conv2d(1, 2, 1)})
    order = in_order(net, lambda: net["late"](net["early"](torch.zeros(1, 1, 1, 2, 2))))
    assert list(order) == ["early", "late", "never"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"g_off": 1e-4}, "g_off = 0.0001 must be below"),
        ({"levels": 1}, "allowed: 0"),
        ({"stuck_on": 0.7, "stuck_off": 0.7}, "stuck_on"),
        ({"modes": "raw/cooked"}, "cooked"),
        ({"sizes": "0"}, "sizes"),
        ({"size": "16"}, "did you mean 'sizes'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Crossbars(options)
