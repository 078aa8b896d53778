"""The model of training energy: the card's reference values, and what must hold for any network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from methods.nn.training_energy import (
    MAC,
    STAGES,
    WORD,
    Energy,
    Machine,
    Work,
    ann_energy,
    counts,
    forward_energy,
    training_energy,
)
from methods.nn.work_family import FAMILIES

PLAIN, STRICT = Machine(), Machine(strict=True)


def conv(channels: int, features: int, size: int, kernel: int = 3) -> Work:
    return Work(channels * features * kernel**2, channels * size**2, features * size**2, size**2, size**2)


def vgg5(steps: float = 8, ss: float = 0.9, sdu: float = 0.7) -> list[Work]:
    """VGG-5 of the released code: its output layer is skipped."""
    layers = [conv(3, 64, 32), conv(64, 128, 16), conv(128, 128, 16), Work(8192 * 1024, 8192, 1024, linear=True)]
    return [replace(layer, steps=steps, back=steps, ss=ss, sdu=sdu) for layer in layers]


def gain(layers: list[Work], machine: Machine = PLAIN) -> float:
    dense = training_energy([layer.dense() for layer in layers], "bptt", machine)
    return dense.compute / training_energy(layers, "bptt", machine).compute


# 1
@pytest.mark.parametrize(
    ("steps", "bits", "ss", "sdu", "total"),
    [(8, 16, 0.9, 0.7, 7_501_254_532.4), (4, 2, 0.9, 0.7, 4_798_986_139.1), (8, 8, 0.8, 0.5, 6_559_774_177.6)],
)
def test_strict_counts_reproduce_the_totals_of_the_release(steps, bits, ss, sdu, total):
    found = training_energy(vgg5(steps, ss, sdu), "bptt", Machine(bits=bits, strict=True))
    assert found.total == pytest.approx(total, rel=1e-9)


# 2
def test_corrected_forward_operations_count_convolutions_and_gate_the_linear_layer():
    convolutions = 9 * (3 * 64 * 1024 + 64 * 128 * 256 + 128 * 128 * 256)
    corrected = counts(vgg5(), "bptt").operations
    assert corrected["forward", "ac"] == pytest.approx(0.1 * 8 * convolutions + 0.1 * 8 * 8192 * 1024)
    assert corrected["forward", "ac"] == corrected["update", "ac"] == pytest.approx(53_424_947, abs=1)
    assert corrected["backward", "mac"] == pytest.approx(160_274_842, abs=1)
    assert corrected["forward", "lif"] == corrected["backward", "pgu"] == 1_056_768
    assert counts(vgg5(), "bptt", STRICT).operations["forward", "ac"] == 8192 * 1024 * 8


def test_corrected_energies_are_those_of_the_card():
    found = training_energy(vgg5(), "bptt")
    picojoules = [found.parts[stage]["compute"] * MAC / 1e6 for stage in STAGES]
    assert picojoules == pytest.approx([2.24, 44.8, 2.12], abs=0.05)
    memory = [(found.stage(stage) - found.parts[stage]["compute"]) * MAC / 1e6 for stage in STAGES]
    assert memory == pytest.approx([581.7, 94.4, 1343.3], abs=0.05)
    assert found.memory / found.total == pytest.approx(0.98, abs=0.005)
    filters = sum(3 * layer.weights for layer in vgg5()) * WORD["dram"] / MAC
    assert filters / found.memory == pytest.approx(0.71, abs=0.005)


# 3
@pytest.mark.parametrize("steps", [2, 4, 8])
def test_twice_the_steps_are_twice_the_compute_and_less_than_twice_the_forward_memory(steps):
    once, twice = (training_energy(vgg5(n), "bptt") for n in (steps, 2 * steps))
    for stage in STAGES:
        assert twice.parts[stage]["compute"] == 2 * once.parts[stage]["compute"]
    for level in ("dram", "glb", "spad"):
        assert 1 < twice.parts["forward"][level] / once.parts["forward"][level] < 2


# 4
def test_without_zeros_there_is_no_gain():
    assert gain(vgg5(ss=0, sdu=0)) == 1


@pytest.mark.parametrize("share", ["ss", "sdu"])
@pytest.mark.parametrize("machine", [Machine(), STRICT])
def test_compute_energy_never_rises_with_a_sparsity(share, machine):
    energies = [
        training_energy([replace(layer, **{share: value}) for layer in vgg5()], "bptt", machine).compute for value in (0, 0.2, 0.5, 0.9, 1)
    ]
    assert all(later < now for now, later in zip(energies[:-1], energies[1:], strict=True))


# 5
def test_a_word_of_dram_is_200_macs_and_one_of_the_scratchpad_1():
    assert WORD["dram"] / MAC == pytest.approx(200, rel=1e-9)
    assert WORD["spad"] / MAC == pytest.approx(1, rel=1e-9)


# 7
def test_the_published_gain_is_reached_at_plausible_sparsities():
    assert gain(vgg5(ss=0.9, sdu=0.8)) == pytest.approx(5.58, abs=0.02)


@pytest.mark.parametrize(("ss", "sdu"), [(0.9, 0.8), (0.8, 0.83), (0.85, 0.81), (0.95, 0.79)])
def test_each_pair_of_the_card_reaches_it_within_the_rounding_of_the_pair(ss, sdu):
    assert gain(vgg5(ss=ss, sdu=sdu - 0.0051)) <= 5.58 <= gain(vgg5(ss=ss, sdu=sdu + 0.0051))


def test_the_gain_at_the_sparsities_of_the_release_is_that_of_the_card():
    assert gain(vgg5()) == pytest.approx(3.89, abs=0.005)


def test_the_spiking_network_takes_the_published_multiple_of_the_ann():
    snn, ann = training_energy(vgg5(), "bptt"), ann_energy(vgg5(), 1)
    assert snn.total / ann.total == pytest.approx(1.25, abs=0.005)
    assert snn.memory / ann.memory == pytest.approx(1.26, abs=0.005)
    assert snn.compute / ann.compute == pytest.approx(0.88, abs=0.005)


# What the model adds


def test_at_16_bits_only_the_linear_layers_and_the_lost_sum_differ_from_the_release():
    convolutions = vgg5()[:3]
    ours, theirs = training_energy(convolutions, "bptt"), training_energy(convolutions, "bptt", STRICT)
    assert ours == theirs


def test_spikes_of_the_later_stages_cost_a_sixteenth_of_a_word_whatever_the_bits():
    def glb(bits: int, strict: bool) -> float:
        return counts(vgg5(), "bptt", Machine(bits=bits, strict=strict)).words["backward", "glb"]

    assert glb(2, False) == glb(16, False) == glb(16, True) < glb(2, True)


def test_inputs_that_are_no_spikes_are_multiplied_and_take_whole_words():
    spikes = vgg5()[0]
    found, plain = (counts([layer], "bptt") for layer in (replace(spikes, real=True), spikes))
    assert found.operations["forward", "mac"] == plain.operations["forward", "ac"]
    extra = found.words["backward", "dram"] - plain.words["backward", "dram"]
    assert extra == pytest.approx(8 * spikes.inputs * 15 / 16)


def test_zeros_of_the_firing_derivative_spare_neurons_their_gradient_and_the_products_behind():
    layer = replace(vgg5()[1], sdf=0.6, source_sdf=0.5)
    used, plain = (counts([layer], "bptt", Machine(use_df=use)).operations for use in (True, False))
    assert used["backward", "pgu"] == pytest.approx(0.4 * plain["backward", "pgu"])
    assert used["backward", "mac"] == pytest.approx(0.5 * plain["backward", "mac"])


def test_a_batch_shares_what_weights_cost_and_nothing_else():
    one, many = (training_energy(vgg5(), "bptt", Machine(batch=batch)) for batch in (1, 100))
    assert many.compute == one.compute
    w = sum(layer.weights for layer in vgg5())
    spared = 0.99 * w * ((1 + 2) * WORD["dram"] + (2 + 1 + 2) * WORD["glb"] + (2 + 1 + 2) * WORD["spad"]) / MAC
    assert one.total - many.total == pytest.approx(spared)


def test_every_family_has_a_descriptor_and_only_two_are_published():
    assert {name for name, descriptor in FAMILIES.items() if descriptor.published} == {"bptt", "ann"}
    for family in FAMILIES:
        assert training_energy(vgg5(), family).total > 0


def test_k_differentiated_steps_cost_k_times_one_and_the_forward_pass_all():
    every, one = (counts([replace(layer, back=k) for layer in vgg5()], "spatial") for k in (8, 1))
    assert one.operations["forward", "ac"] == every.operations["forward", "ac"]
    for key in (("backward", "mac"), ("backward", "pgu"), ("update", "ac")):
        assert one.operations[key] == pytest.approx(every.operations[key] / 8)
    assert one.words["backward", "dram"] == pytest.approx(every.words["backward", "dram"] / 8)


def test_online_rules_store_one_step_and_multiply_by_traces():
    layers = [replace(layer, trace=0.6) for layer in vgg5()]
    found, other = counts(layers, "online"), counts([replace(layer, steps=16, back=16) for layer in layers], "online")
    assert found.words["backward", "dram"] == other.words["backward", "dram"] == sum(layer.outputs + layer.inputs for layer in layers)
    assert found.operations["update", "mac"] == pytest.approx(0.4 * sum(layer.weights * layer.places_out * 8 for layer in layers))
    plain = training_energy(vgg5(), "online").parts["backward"]["compute"]
    assert plain < training_energy(vgg5(), "bptt").parts["backward"]["compute"]  # no addition over time


def test_a_weight_sharing_branch_is_the_spiking_forward_pass_and_the_ann():
    layers = [replace(layer, passes=1) for layer in vgg5()]
    whole, ann, forward = training_energy(layers, "ann_branch"), ann_energy(layers, 1), forward_energy(layers)
    for stage in STAGES:
        for level in whole.parts[stage]:
            assert whole.parts[stage][level] == pytest.approx(ann.parts[stage][level] + forward.parts[stage][level])
    assert forward.stage("backward") == forward.stage("update") == 0


def test_a_layer_that_runs_forward_only_has_no_other_stage_and_stores_nothing():
    layers = [replace(layer, back=0) for layer in vgg5()]
    assert training_energy(layers, "block") == forward_energy(vgg5())
    assert counts(layers, "block").words["forward", "dram"] == sum(layer.weights for layer in layers)


def test_a_frozen_layer_passes_the_gradient_on_and_is_not_updated():
    frozen = training_energy([replace(layer, learns=False) for layer in vgg5()], "bptt")
    assert frozen.stage("update") == 0
    assert frozen.stage("backward") == training_energy(vgg5(), "bptt").stage("backward")


def test_events_cost_two_exponentials_per_synapse_and_three_words_per_spike():
    layer = Work(50, 5, 10, events_in=4, events_out=3, reach=40, causal=7)
    found = counts([layer], "event")
    assert found.operations["forward", "mac"] == 80
    assert found.operations["backward", "mac"] == found.operations["update", "mac"] == 14
    assert found.words["forward", "dram"] == 50 + 3 * 7
    assert found.words["backward", "dram"] == 3 * 7


def test_energies_add_up():
    parts = [training_energy([layer], "bptt") for layer in vgg5()]
    whole = sum(parts, Energy.none())
    assert whole.total == pytest.approx(training_energy(vgg5(), "bptt").total)
    assert (whole * 3).memory == pytest.approx(3 * whole.memory)
