"""Voting neurons: equal and learnt weights, of votes and of steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.votes import Votes

T, B, CLASSES, VOTES = 4, 3, 5, 6


def readout(**options) -> Votes:
    torch.manual_seed(0)
    return Votes(16, CLASSES, VOTES, LIF(threshold=0.3), steps=T, **options)


def features() -> torch.Tensor:
    return torch.randn(T, B, 16, generator=torch.Generator().manual_seed(1))


def spikes(votes: Votes) -> torch.Tensor:
    return votes.neuron(votes.synapse(features()))


def test_equal_votes_are_the_strided_average_pool_over_the_neurons_of_a_class():
    votes = readout()
    found = votes(features())
    assert torch.allclose(found, F.avg_pool1d(spikes(votes), VOTES, VOTES))
    assert 0 < found.mean() < 1


def test_the_mean_over_time_of_equal_votes_is_the_mean_over_votes_and_time():
    votes = readout()
    for k in range(CLASSES):
        own = spikes(votes)[:, :, k * VOTES : (k + 1) * VOTES]
        torch.testing.assert_close(votes(features()).mean(0)[:, k], own.mean((0, 2)))


def test_learnt_weights_start_equal():
    torch.testing.assert_close(readout(learnt_votes=True, learnt_steps=True)(features()), readout()(features()))


def test_learnt_votes_are_weighted_by_a_softmax_over_the_votes_of_a_class():
    votes = readout(learnt_votes=True)
    torch.nn.init.normal_(votes.vote_logits)
    weights = votes.vote_logits.exp() / votes.vote_logits.exp().sum(1, keepdim=True)
    expected = torch.einsum("tbkp,kp->tbk", spikes(votes).view(T, B, CLASSES, VOTES), weights)
    torch.testing.assert_close(votes(features()), expected)
    votes(features()).square().sum().backward()
    assert votes.vote_logits.grad.count_nonzero()


def test_learnt_steps_keep_the_mean_of_a_constant_and_can_pick_one_step():
    votes = readout(learnt_steps=True)
    with torch.no_grad():
        votes.step_logits.copy_(torch.tensor([0.0, 0.0, 50.0, 0.0]))
    torch.testing.assert_close(votes(features()).mean(0), readout()(features())[2])


def test_steps_one_by_one_have_the_weights_of_their_places():
    votes = readout(learnt_steps=True)
    torch.nn.init.normal_(votes.step_logits)
    with torch.no_grad(), stepping(votes):
        serial = torch.cat([votes(now) for now in features().split([1, 2, 1])])
    torch.testing.assert_close(serial, votes(features()).detach())


def test_more_steps_than_have_weights_are_refused():
    with pytest.raises(ValueError, match="weighted for 4 time steps, 5 were given"):
        readout(learnt_steps=True)(torch.zeros(5, 1, 16))


def test_no_votes_are_refused():
    with pytest.raises(ValueError, match="1 and more"):
        Votes(4, 2, 0, LIF())
