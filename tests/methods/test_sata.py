"""Probe ``sata``: how it looks on, what it leaves alone, how phases are counted, and its figures on small networks."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from harness.loop import Observer, train
from harness.method import Method, Phase
from harness.plugin import UsageError
from harness.registry import Registries
from harness.spec import parse_variant
from harness.task import Backbone
from methods.nn.rehearsal import Rehearsal
from methods.nn.synapse import Conv2d
from methods.nn.work_family import FAMILIES
from methods.sata import Sata
from methods.stbp import Stbp
from suites.static_vision import Digits

REGISTRIES = Registries()


def digits(samples: int = 48, target: float | None = None) -> Digits:
    """The task with a small network and few samples."""
    task = Digits()
    backbone = Backbone("conv", (4, 6))
    task.budget = replace(task.budget, backbone=backbone, train_samples=samples, validation_samples=32, test_samples=16, target=target)
    return task


def bound(name: str, epochs: int = 3, target: float | None = None, **settings: Any) -> Method:
    kind, options = parse_variant(name)
    return REGISTRIES.methods.load(kind)(digits(target=target), options, training={"epochs": epochs, "batch_size": 16}, **settings)


class Watched(Observer):
    """A training that a probe looks on, as the runner lets it."""

    def __init__(self, method: Method, probe: Sata) -> None:
        torch.manual_seed(0)
        self.method, self.probe = method, probe
        self.net = method.build()
        self.now: Phase | None = None
        self.show(0.0)
        train(method, self.net, 0, observer=self)

    def show(self, share: float) -> None:
        with torch.random.fork_rng():
            self.probe.observe(self.method, self.net, self.now, share)

    def phase(self, phase: Phase, *_: Any) -> None:
        self.now = phase

    def epoch(self, trace, epochs: int) -> None:
        self.show((trace.epoch + 1) / epochs)


def figures(name: str, options: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    probe = Sata({"batches": 1, **(options or {})})
    run = Watched(bound(name, **settings), probe)
    return probe.measure(run.method, run.net)


@pytest.fixture(scope="module")
def stbp() -> dict[str, Any]:
    return figures("stbp")


# How it looks on


def test_it_looks_at_the_beginning_in_the_middle_and_at_the_end(stbp):
    assert [look["share"] for look in stbp["looks"]] == pytest.approx([0, 2 / 3, 1])
    assert all(look["samples"] == 16 for look in stbp["looks"])


def test_by_default_it_takes_ten_batches_and_more():
    assert 3 * Sata().options.batches >= 10


def test_training_goes_the_same_way_with_and_without_it():
    def weights(watched: bool) -> dict[str, torch.Tensor]:
        method = bound("tcl", epochs=2)
        if watched:
            probe = Sata({"batches": 2})
            run = Watched(method, probe)
            before = copy.deepcopy(run.net.state_dict())
            probe.measure(method, run.net)
            assert all(torch.equal(before[name], value) for name, value in run.net.state_dict().items())
            assert not any(module._forward_hooks for module in run.net.modules())
            return {**run.net.state_dict(), "clamped": method.clamped}
        torch.manual_seed(0)
        net = method.build()
        train(method, net, 0)
        return {**net.state_dict(), "clamped": method.clamped}

    with_probe, without = weights(True), weights(False)
    assert with_probe.keys() == without.keys()
    for name, value in without.items():
        assert torch.equal(with_probe[name], value), name


def test_a_network_that_nobody_looked_at_in_training_is_looked_at_once():
    method = bound("stbp")
    found = Sata({"batches": 1}).measure(method, method.build())
    assert [look["share"] for look in found["looks"]] == [1.0]


def test_what_a_method_and_its_network_hold_of_each_other_stays_theirs_in_a_rehearsal():
    class Holding(Stbp):
        def build(self) -> nn.Module:
            self.held = super().build()
            return self.held

    method = Holding(digits())
    net = method.build()
    rehearsal = Rehearsal(method, net, Phase(modules=[net.backbone]))
    assert rehearsal.method.held is rehearsal.net is not net
    assert rehearsal.method.task is method.task
    assert rehearsal.net.backbone.training
    assert not rehearsal.net.head.training
    (batch,) = rehearsal.batches(1)
    rehearsal.step(batch)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert any(parameter.grad is not None for parameter in rehearsal.net.parameters())


def test_only_samples_that_a_phase_keeps_are_looked_at():
    method = bound("stbp")
    rehearsal = Rehearsal(method, method.build(), Phase(keep=lambda targets: targets == 3))
    assert all((batch.targets == 3).all() for batch in rehearsal.batches(3))


# How phases are counted


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("stbp", "bptt"),
        ("sltt", "spatial"),
        ("sltt[rule=bptt]", "bptt"),
        ("ottt", "online"),
        ("ann", "ann"),
        ("tcl", "conversion"),
        ("psn", "bptt"),
        ("rev_snn", "recomputed"),
        ("eventprop[hidden=12]", "event"),
    ],
)
def test_the_family_is_told_from_the_steps(name, family):
    found = figures(name, epochs=1)
    assert found["family"] == FAMILIES[family].title
    assert found["status"] == ("as published" if family in ("bptt", "ann") else "extrapolated")
    (phase,) = found["phases"]
    assert phase["forward"] == FAMILIES[family].forward
    assert found["total"] > 0


def test_phases_are_counted_each_by_its_own_family_and_weighted_by_samples():
    found = figures("diet_snn", epochs=4)
    assert [(phase["phase"], phase["title"]) for phase in found["phases"]] == [("ann", "conversion"), ("tune", "BPTT SNN")]
    assert [phase["steps"] for phase in found["phases"]] == [1, 4]
    ann, tune = (phase["total"] for phase in found["phases"])
    simulated = found["forward"] + found["backward"] + found["update"] - (ann + tune) / 2
    assert simulated > 0  # the calibration
    assert found["simulated_per_sample"] == 64 / (4 * 48)
    assert found["status"] == "extrapolated"


def test_a_first_phase_without_epochs_leaves_no_look_in_the_next():
    found = figures("diet_snn[ann_share=0]", epochs=2)
    assert [phase["phase"] for phase in found["phases"]] == ["tune"]
    assert [look["share"] for look in found["looks"]] == [0.5, 1.0]


def test_blocks_that_are_frozen_run_forward_only():
    found = figures("bloctrain[blocks=2]", epochs=1)
    assert found["family"] == "BPTT SNN + block-wise"
    last = found["phases"][-1]
    assert last["title"] == "block-wise"
    first = found["sparsities"]["block 2"]["blocks.0.0.synapse"]
    assert first["ss"] is not None
    assert first["sdu"] is None
    assert any("block 2: blocks.0.0.synapse" in where for where in found["unmeasured"].values())


def test_weights_shared_with_an_ann_are_seen_in_any_method():
    class Branch(Stbp):
        def step(self, net, batch, update):
            with torch.no_grad():
                net(self.encode(batch.inputs))
            x = self.task.encode(batch.inputs, 1)
            for module in net.modules():
                if isinstance(module, Conv2d):
                    x = module(x).relu()
            loss = x.square().mean()
            update.minimise(loss)
            return loss

    method = Branch(digits())
    found = Sata({"batches": 1}).measure(method, method.build())
    assert found["family"] == "ANN branch with shared weights"
    assert found["energy"]["update"]["compute"] > 0
    assert list(found["unmeasured"]) == ["an ANN is counted without use of zeros"]


def test_a_method_may_say_how_to_count_it():
    method = bound("stbp")
    method.work_family = "online"
    assert Sata({"batches": 1}).measure(method, method.build())["family"] == FAMILIES["online"].title
    method.work_family = "onlin"
    with pytest.raises(UsageError, match="did you mean 'online'"):
        Sata({"batches": 1}).measure(method, method.build())


def test_steps_that_are_differentiated_are_counted():
    found = figures("sltt_k[k=1]", epochs=1)
    assert [(phase["steps"], phase["differentiated_steps"]) for phase in found["phases"]] == [(4, 1)]


def test_conversion_adds_what_it_simulates_to_the_ann():
    ann, converted = figures("ann", epochs=1), figures("tcl", epochs=1)
    assert converted["backward"] == ann["backward"]
    assert converted["forward"] > ann["forward"]
    assert converted["simulated_per_sample"] == 64 / 48
    assert all(0 <= share <= 1 for share in converted["simulated_ss"])


# Figures


def test_zeros_are_measured_in_every_layer(stbp):
    rows = stbp["sparsities"]["train"]
    assert list(rows) == [f"backbone.stages.{i}.{j}.synapse" for i in range(2) for j in range(2)] + ["head.readout"]
    for name, row in rows.items():
        assert 0 <= row["ss"] <= row["ss_quantised"] < 1
        assert 0 <= row["sdu"] <= row["sdu_quantised"] < 1
        if name != "head.readout":
            assert row["sdu"] <= row["sdf"]
    assert [where for reason, where in stbp["unmeasured"].items() if reason.startswith("sdf")] == [["train: head.readout"]]


def test_parts_add_up(stbp):
    assert stbp["total"] == pytest.approx(sum(sum(levels.values()) for levels in stbp["energy"].values()))
    assert stbp["total"] == pytest.approx(stbp["compute"] + stbp["memory"])
    assert stbp["gain_compute"] > stbp["gain_total"] > 1
    assert stbp["total_at_batch"] < stbp["total"]
    assert "never a measurement" in stbp["estimate"]


def test_an_ann_takes_what_an_ann_takes():
    found = figures("ann", epochs=1)
    assert found["ann_ratio"] == found["ann_ratio_training"] == found["gain_compute"] == 1
    assert (found["ss"], found["sdu"], found["sdf"]) == (None, None, None)


def test_compute_is_linear_in_time_memory_affine_and_the_ratio_to_the_ann_grows():
    """Card: a small network at T = 2, 4, 8. Zeros are set aside, as they differ between networks."""
    parts = []
    for steps in (2, 4, 8):
        method = bound("stbp", steps=steps)
        torch.manual_seed(0)
        probe = Sata({"batches": 1})
        parts.append(probe.measure(method, method.build()))
    compute = [found["gain_compute"] * found["compute"] for found in parts]
    assert compute[1:] == pytest.approx([2 * compute[0], 4 * compute[0]])
    memory = [found["memory"] for found in parts]
    assert memory[2] - memory[1] == pytest.approx(2 * (memory[1] - memory[0]))
    assert memory[1] < 2 * memory[0]
    assert parts[0]["ann_ratio"] < parts[1]["ann_ratio"] < parts[2]["ann_ratio"]


def test_options_change_what_they_say():
    method = bound("stbp")
    torch.manual_seed(0)
    net = method.build()

    def measured(**options: Any) -> dict[str, Any]:
        torch.manual_seed(0)
        return Sata({"batches": 1, **options}).measure(method, net)

    plain = measured()
    assert measured(bits=4)["forward"] < plain["forward"]
    assert measured(strict=True)["energy"]["forward"]["compute"] < plain["energy"]["forward"]["compute"]
    assert measured(use_df=True)["energy"]["backward"]["compute"] < plain["energy"]["backward"]["compute"]
    assert measured(batch=16)["total"] == pytest.approx(plain["total_at_batch"])
    assert measured(skip_output=True)["total"] < plain["total"]
    assert measured(zeros="quantised")["compute"] <= plain["compute"]
    with pytest.raises(UsageError, match="bits"):
        Sata({"bits": 0})


def test_energy_to_the_target_is_that_of_the_samples_until_it_was_met():
    found = figures("stbp", target=0.0)
    assert found["samples_to_target"] == 48  # after one of three epochs
    assert found["energy_to_target"] == pytest.approx(48 * found["total"])
    missed = figures("stbp", epochs=1, target=1.5)
    assert missed["samples_to_target"] is missed["energy_to_target"] is None


def test_a_converted_network_meets_the_target_when_it_has_been_converted():
    found = figures("tcl", epochs=2, target=0.0)
    assert found["samples_to_target"] == found["samples"] == 96
    assert found["energy_to_target"] == pytest.approx(found["training_total"])


def test_a_record_is_one_row_of_the_table(stbp):
    (row,) = Sata.rows(stbp)
    assert (row["family"], row["status"]) == ("BPTT SNN", "as published")
    assert row["total"] == stbp["total"] / 1e6
    assert row["to_target"] is None
    assert set(row) <= set(Sata.headings)
    assert all(value is None or isinstance(value, (str, float)) for value in row.values())
