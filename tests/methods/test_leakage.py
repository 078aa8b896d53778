"""The probe ``leakage``: audit, rebuilt networks, impressions and scores."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from harness.loop import train
from harness.plugin import UsageError
from harness.registry import Registries
from harness.spec import parse_variant
from harness.task import Backbone
from methods.leakage import Leakage, Space, class_means, data_leak, opaque, spiking_logits, straight_through, twin_logits
from methods.nn.relu_twin import relu_twin
from methods.private_snn import PrivateSnn
from methods.stbp import Stbp
from suites.static_vision import Digits

REGISTRIES = Registries()
QUICK = {"impressions": 2, "iterations": 5, "test_samples": 24, "judge_epochs": 1}


def small_task() -> Digits:
    task = Digits()
    task.budget = replace(task.budget, backbone=Backbone("conv", (4, 6)), train_samples=96, validation_samples=8, test_samples=24)
    return task


def built(method):
    torch.manual_seed(0)
    return method.build().eval()


def converted(options=None) -> tuple[PrivateSnn, torch.nn.Module]:
    method = PrivateSnn(small_task(), options or {}, steps=8)
    net = built(method)
    method.convert(net, torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    return method, net


@pytest.fixture(scope="module")
def measured():
    method, net = converted()
    before, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    return Leakage(QUICK).measure(method, net), method, net, before, rng


def test_weights_modes_and_random_numbers_are_left_as_they_were(measured):
    _, _, net, before, rng = measured
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [p.requires_grad for p in net.parameters()] == [not n.endswith("threshold") for n, _ in net.named_parameters()]
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_the_same_seed_gives_the_same_figures_and_another_seed_others(measured):
    found, method, net, _, _ = measured
    torch.manual_seed(99)
    assert Leakage(QUICK).measure(method, net) == found
    assert Leakage(QUICK | {"seed": 1}).measure(method, net)["A2"]["cosine"] != found["A2"]["cosine"]


def test_leaks_are_scores_above_chance(measured):
    found = measured[0]
    assert found["chance"] == 0.1
    for name in ("A2", "A3"):
        part = found[name]
        assert part["recognised_leak"] == pytest.approx(part["recognised"] - 0.1)
        assert part["recognised"] == pytest.approx(sum(part["recognised_classes"]) / 10)
        assert part["cosine_leak"] == pytest.approx(part["cosine"] - part["cosine_chance"])
    assert found["A2"]["leak"] == pytest.approx(found["A2"]["accuracy"] - 0.1)


def test_rows_have_the_figures_of_every_attack_and_headings_for_all_columns(measured):
    rows = Leakage.rows(measured[0])
    assert [row["attack"][:2] for row in rows] == ["A1", "A2", "A2", "A2", "A3", "A3"]
    assert {name for row in rows for name in row} == set(Leakage.headings)
    assert rows[0]["images_read"] == 0
    assert rows[1]["leak"] == measured[0]["A2"]["leak"]
    assert rows[4]["score"] == measured[0]["A3"]["recognised"]
    without = Leakage.rows({name: part for name, part in measured[0].items() if name != "A3"})
    assert [row["attack"][:2] for row in without] == ["A1", "A2", "A2", "A2"]


def test_the_rebuilt_network_of_a_conversion_agrees_with_the_original_on_every_image():
    method = PrivateSnn(small_task(), steps=8)
    net = built(method)
    original = relu_twin(net)
    method.convert(net, torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8))
    inputs = next(method.task.batches("test")).inputs
    with torch.no_grad():
        wanted = method.predict_ann(original, inputs).final().argmax(1)
        assert torch.equal(twin_logits(method, relu_twin(net))(inputs).argmax(1), wanted)


def test_accuracy_and_agreement_are_counted_on_test_images():
    method, net = converted()
    twin = twin_logits(method, relu_twin(net))
    torch.manual_seed(5)
    found = Leakage(QUICK)._copied(method, net, twin, 0.1)
    batch = next(method.task.batches("test"))
    torch.manual_seed(5)
    with torch.no_grad():
        rebuilt, own = twin(batch.inputs).argmax(1), method.predict(net, batch.inputs).final().argmax(1)
    assert found["accuracy"] == (rebuilt == batch.targets).double().mean()
    assert found["network_accuracy"] == (own == batch.targets).double().mean()
    assert found["agreement"] == (rebuilt == own).double().mean()


def test_a_network_of_class_means_leaks_them_and_one_of_noise_does_not():
    """Logits that are products with the class means, and with noise: the judge knows the one by the other."""
    task = small_task()
    space = Space.of(task)
    means = class_means(task, space)
    centred = (means - means.mean(0)).flatten(1)
    probe = Leakage({"impressions": 4, "iterations": 100, "lr": 0.05})

    def logits(weight):
        return lambda inputs: 20 * space.back(inputs).flatten(1) @ weight.T

    torch.manual_seed(0)
    telling = probe._ascend(task, space, logits(centred), logits(centred), means)
    silent = probe._ascend(task, space, logits(torch.randn(10, 64)), logits(centred), means)
    assert telling["recognised"] == telling["own"] == silent["own"] == 1
    assert telling["cosine_leak"] > 0.2 > 4 * abs(silent["cosine_leak"])
    assert silent["recognised"] < 0.5


def test_class_means_are_those_of_the_pixels():
    task = small_task()
    data = task.split("train")
    found = class_means(task, Space.of(task))
    for label in range(10):
        torch.testing.assert_close(found[label], data.inputs[data.targets == label].mean(0))


# What is asked of methods


@pytest.mark.parametrize("name", ["stbp", "ann", "ann2snn", "tcl", "diet_snn", "psn", "glif", "hoyer", "bntt", "rev_snn", "bloctrain"])
def test_networks_of_all_kinds_can_be_looked_at(name):
    assert Leakage().supports(REGISTRIES.methods.load(name)(small_task())) is None


def test_neurons_of_spike_times_and_tasks_without_classes_are_refused_with_a_reason():
    assert "spike times" in Leakage().supports(REGISTRIES.methods.load("fast_and_deep")(small_task()))
    assert "detect" in Leakage().supports(Stbp(REGISTRIES.tasks.load("detection/digit-scenes")()))


def test_a_network_without_spikes_has_no_third_attack():
    method = REGISTRIES.methods.load("ann")(small_task())
    found = Leakage(QUICK).measure(method, built(method))
    assert "A3" not in found
    assert found["A2"]["agreement"] == 1


def test_events_are_attacked_in_the_range_of_the_data():
    task = REGISTRIES.task("sequences/digits-pixels")
    task.budget = replace(task.budget, train_samples=64, test_samples=8, validation_samples=8)
    method = Stbp(task)
    space = Space.of(task)
    inputs = next(task.batches("train")).inputs
    torch.testing.assert_close(space.inputs(space.back(inputs)), inputs)
    assert space.back(inputs).min() == 0
    assert space.back(inputs).max() == 1
    found = Leakage(QUICK | {"iterations": 1, "impressions": 1}).measure(method, built(method))
    assert set(found) == {"chance", "A1", "judge_accuracy", "A2", "A3"}


# Gradients


def test_random_input_spikes_pass_gradients_straight_to_their_rates():
    method, _ = converted()
    images = torch.rand(3, 1, 8, 8, requires_grad=True)
    torch.manual_seed(0)
    sequence = straight_through(method, lambda method, inputs: method.encode(inputs))(method.task.prepare(images))
    assert set(sequence.unique().tolist()) <= {-1.0, 0.0, 1.0}
    (slope,) = torch.autograd.grad(sequence.mean(0).sum(), images)
    torch.testing.assert_close(slope, torch.full_like(slope, 2.0))


def test_an_encoding_that_passes_gradients_is_left_alone():
    method = Stbp(small_task())
    inputs = torch.rand(3, 1, 8, 8, requires_grad=True)
    found = straight_through(method, lambda method, inputs: 3 * method.encode(inputs))(inputs)
    (slope,) = torch.autograd.grad(found.sum(), inputs)
    assert (slope == 3 * method.steps).all()


def test_the_third_attack_goes_through_the_surrogate_of_every_time_step():
    method, net = converted({"input": "analog"})
    images = method.task.prepare(torch.rand(4, 1, 8, 8)).requires_grad_()
    (found,) = torch.autograd.grad(spiking_logits(method, net)(images)[:, 0].sum(), images)
    x = images.detach().requires_grad_()
    (wanted,) = torch.autograd.grad(net(method.rates(x).expand(8, *x.shape)).mean(0)[:, 0].sum(), x)
    torch.testing.assert_close(found, wanted)
    assert found.abs().max() > 0


# A1


def test_the_audit_knows_what_conversions_count_and_what_back_propagation_reads():
    method = PrivateSnn(small_task(), {"calibration": "real", "encrypt": False})
    method.training_images_read = 48
    assert data_leak(method) == {"reads": "conversion reads training data", "images_read": 48, "training_images": 96, "share": 0.5}
    assert data_leak(Stbp(small_task()))["images_read"] == 96
    assert "images_read" not in data_leak(REGISTRIES.methods.load("ann2snn")(small_task()))


def test_options_that_are_out_of_range_are_refused():
    with pytest.raises(UsageError, match="iterations"):
        Leakage({"iterations": "0"})


@pytest.mark.parametrize(("name", "images"), [("ann2snn[calibration=48]", 48), ("tcl", 0), ("spicalib[search=off,quantile_images=16]", 16)])
def test_training_images_that_a_conversion_reads_are_counted(name, images):
    base, options = parse_variant(name)
    task = Digits()
    task.budget = replace(task.budget, train_samples=64, validation_samples=16, test_samples=16)
    method = Registries().methods.load(base)(task, options, steps=2, training={"epochs": 1})
    train(method, method.build(), 0)
    assert method.training_images_read == images


def test_an_attack_that_no_gradient_serves_is_not_possible_and_says_so():
    assert opaque(lambda x: x.flatten(1)[:, :2] ** 2, torch.rand(2, 1, 4, 4)) is None
    assert opaque(lambda x: x.floor().flatten(1), torch.rand(2, 1, 4, 4)) == "its neurons pass no gradient"
    assert "cannot be differentiated" in opaque(lambda x: x.detach().flatten(1), torch.rand(2, 1, 4, 4))
    figures = {
        "chance": 0.1,
        "A1": {"reads": "none"},
        "A2": dict.fromkeys(("accuracy", "leak", "recognised", "recognised_leak", "cosine", "cosine_chance", "cosine_leak"), 0.5),
        "A3": {"cannot": "its neurons pass no gradient"},
    }
    attacks = [row["attack"] for row in Leakage.rows(figures)]
    assert attacks[1] == "A3 not possible: its neurons pass no gradient" and not any("A3 impressions" in each for each in attacks)
