"""IF neurons with adapted thresholds and dropped out potentials."""

from __future__ import annotations

import pytest
import torch

from methods.nn import adapted_if, native
from methods.nn.adapted_if import AdaptedIF
from methods.nn.layout import channels_last
from methods.nn.stepping import stepping

SHAPE = (3, 4, 5)


def neuron(threshold: float | None = None, shape=SHAPE, **options) -> AdaptedIF:
    torch.manual_seed(0)
    found = AdaptedIF(shape, **options)
    if threshold is not None:
        found.threshold.fill_(threshold)
    return found


def loop(current, threshold, masks):
    m, spikes = torch.zeros_like(current[0]), []
    for now, mask in zip(current, masks, strict=True):
        u = m + now
        spikes.append((u > threshold).to(current.dtype))
        m = mask * u * (1 - spikes[-1])
    return torch.stack(spikes)


def test_a_neuron_fires_strictly_above_threshold_resets_to_zero_and_does_not_leak():
    current = torch.tensor([1.0, 0.5, 0.2, 2.5, 0.3]).view(-1, 1, 1)
    assert neuron(1.0, (1,)).eval()(current).flatten().tolist() == [0, 1, 0, 1, 0]


def test_thresholds_start_between_0_and_1_and_are_no_parameters():
    found = AdaptedIF((1000,))
    assert 0 <= found.threshold.min() < 0.02 and 0.98 < found.threshold.max() <= 1
    assert not list(found.parameters()) and "threshold" in dict(found.named_buffers())


@pytest.mark.parametrize("layout", [channels_last, torch.clone])
def test_without_dropout_kernels_do_what_the_loop_does(layout):
    found, current = neuron().eval(), layout(torch.randn(6, 2, *SHAPE))
    assert torch.equal(found(current), loop(current, found.threshold, [1] * 6))
    assert found.used == ("native" if native.available(torch.float32) else "reference")
    assert torch.equal(neuron(membrane_dropout=False).train()(current), found(current))


@pytest.mark.parametrize("steps", [1, 8, 11])
@pytest.mark.parametrize("layout", [channels_last, torch.clone, lambda x: x[:1].expand(x.shape)])
def test_with_dropout_training_is_the_loop_with_its_coins(steps, layout, monkeypatch):
    drawn, original = [], adapted_if._bytes
    monkeypatch.setattr(adapted_if, "_bytes", lambda now: drawn.append(original(now)) or drawn[-1])
    found, current = neuron().train(), layout(torch.randn(steps, 2, *SHAPE).abs() / 4)
    spikes = found(current)
    masks = [2 * ((drawn[t // 8] >> (t % 8)) & 1) for t in range(steps)]
    assert torch.equal(spikes, loop(current, found.threshold, masks))
    assert len(drawn) == -(-steps // 8)


def test_dropout_is_off_in_eval_mode_and_a_fair_coin_in_training():
    current = torch.full((2, 1, 40_000), 0.6)
    found = neuron(1.0, (40_000,))
    assert (found.eval()(current)[1] == 1).all()
    spikes = found.train()(current)
    assert (spikes[0] == 0).all()
    assert abs(spikes[1].mean().item() - 0.5) < 0.02


def test_coins_of_different_steps_and_neurons_are_independent():
    torch.manual_seed(0)
    drawn = adapted_if._bytes(torch.empty(1, 80_000))
    bits = torch.stack([(drawn >> k) & 1 for k in range(8)]).double().flatten(1)
    assert (torch.corrcoef(bits) - torch.eye(8)).abs().max() < 0.02
    assert abs(bits.mean() - 0.5) < 0.005
    assert abs(torch.corrcoef(torch.stack([bits[:, :-1].flatten(), bits[:, 1:].flatten()]))[0, 1]) < 0.01


def test_potentials_are_carried_between_steps_of_training():
    found, current = neuron(1.0, (3,)).train(), torch.full((1, 2, 3), 0.6)
    with stepping(found):
        found(current)
        (m,) = found.carried()
        assert ((m == 0) | (m == 2 * current[0])).all()
        assert torch.equal(found(current)[0], (m + 0.6 > 1).float())


def test_thresholds_rise_by_what_is_asked():
    found = neuron()
    before = found.threshold.clone()
    found.raise_thresholds(torch.tensor(0.25))
    assert torch.equal(found.threshold, before + 0.25)
