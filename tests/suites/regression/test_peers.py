"""The comparison with other libraries: a small run, what is left out, and what stops it."""

from __future__ import annotations

import sys

import pytest
import torch

from methods.nn.neuron import LIF
from methods.nn.surrogate import Arctan, Rectangle
from suites.regression import peers
from suites.regression.peers import Contender

OURS = [contender for contender in peers.ours("cpu") if contender.name != "ours, compiled"]  # compiling takes seconds


def test_the_layer_and_the_net_are_timed_for_every_contender_after_its_numbers_were_compared():
    for what in ("layer", "net"):
        first, medians = peers.compare(OURS, what, 2, 1, "cpu", size=1 / 32)
        assert len(first) == len(medians) == len(OURS)
        assert all(time > 0 for time in first + medians)


@pytest.mark.parametrize(
    "other", [LIF(0.5, surrogate=Arctan(2.0), threshold=0.9, backend="reference"), LIF(0.5, surrogate=Rectangle(), backend="reference")]
)
def test_a_contender_with_other_spikes_or_gradients_stops_the_run(other):
    with pytest.raises(RuntimeError, match="impostor differs from the reference"):
        peers.compare([Contender("impostor", lambda: other)], "layer", 3, 1, "cpu", size=1 / 32)


def test_libraries_that_are_not_installed_are_left_out_with_a_line(monkeypatch):
    for name in ("spikingjelly.activation_based", "snntorch", "norse.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    found, missing = peers.contenders("cpu")
    assert [contender.name for contender in found] == [contender.name for contender in peers.ours("cpu")]
    assert [line.partition(" ")[0] for line in missing] == ["spikingjelly", "snntorch", "norse"]
    assert all("pip install 'spikebench[peers]'" in line for line in missing)


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize(
    ("module", "library"), [("spikingjelly", peers.spikingjelly), ("snntorch", peers.snntorch), ("norse", peers.norse)]
)
def test_the_libraries_that_are_installed_agree_with_the_reference(module, library):
    pytest.importorskip(module)
    peers.compare(list(library("cpu")), "layer", 5, 1, "cpu", size=1 / 32)


def test_the_tables_have_a_row_per_contender_and_ratios_to_ours(monkeypatch, capsys):
    monkeypatch.setattr(peers, "contenders", lambda device: (OURS, ["norse is left out: a reason"]))
    peers.main(["--steps", "1", "--rounds", "1", "--size", "0.03", "--device", "cpu", "--threads", str(torch.get_num_threads())])
    out = capsys.readouterr().out
    assert out.startswith("norse is left out: a reason\n")
    assert "layer, T=1" in out
    assert "net, T=1" in out
    rows = [line.partition("  ")[0] for line in out.splitlines()]
    assert all(rows.count(contender.name) == 2 for contender in OURS)
    assert out.count("(1.00x)") >= 2
