"""The comparison with other libraries: small runs, what is left out, and what stops it."""

from __future__ import annotations

import sys

import pytest
import torch

from methods.nn.neuron import LIF
from methods.nn.surrogate import Arctan, Rectangle
from suites.regression.peers import __main__ as command
from suites.regression.peers import contenders as libraries
from suites.regression.peers import glif, lif, memory, recurrence
from suites.regression.peers.contenders import Contender
from suites.regression.peers.timing import faster

OURS = [contender for contender in libraries.ours("cpu") if contender.name != "ours, compiled"]  # compiling takes seconds


def test_the_layer_and_the_net_are_timed_for_every_contender_after_its_numbers_were_compared():
    for what in ("layer", "net"):
        first, medians = lif.compare(OURS, what, 2, 1, "cpu", size=1 / 32)
        assert len(first) == len(medians) == len(OURS)
        assert all(time > 0 for time in first + medians)


@pytest.mark.parametrize(
    "other", [LIF(0.5, surrogate=Arctan(2.0), threshold=0.9, backend="reference"), LIF(0.5, surrogate=Rectangle(), backend="reference")]
)
def test_a_contender_with_other_spikes_or_gradients_stops_the_run(other):
    with pytest.raises(RuntimeError, match="impostor differs from the reference"):
        lif.compare([Contender("impostor", lambda: other)], "layer", 3, 1, "cpu", size=1 / 32)


def test_libraries_that_are_not_installed_are_left_out_with_a_line(monkeypatch):
    for name in ("spikingjelly.activation_based", "snntorch", "norse.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    found, missing = libraries.contenders("cpu")
    assert [contender.name for contender in found] == [contender.name for contender in libraries.ours("cpu")]
    assert [line.partition(" ")[0] for line in missing] == ["spikingjelly", "snntorch", "norse"]
    assert all("pip install 'spikebench[peers]'" in line for line in missing)


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize(
    ("module", "library"), [("spikingjelly", libraries.spikingjelly), ("snntorch", libraries.snntorch), ("norse", libraries.norse)]
)
def test_the_libraries_that_are_installed_agree_with_the_reference(module, library):
    pytest.importorskip(module)
    lif.compare(list(library("cpu")), "layer", 5, 1, "cpu", size=1 / 32)


def test_the_tables_have_a_row_per_contender_and_ratios_to_ours(monkeypatch, capsys):
    monkeypatch.setattr(command, "contenders", lambda device: (OURS, ["norse is left out: a reason"]))
    monkeypatch.setattr(command, "keep_memory", lambda: True)
    monkeypatch.setattr(command, "use_huge_pages", lambda: None)
    threads = str(torch.get_num_threads())
    command.main(["layer", "net", "--steps", "1", "--rounds", "1", "--size", "0.03", "--device", "cpu", "--threads", threads])
    out = capsys.readouterr().out
    assert out.startswith("all contenders in one process, which keeps the memory that it frees\nnorse is left out: a reason\n")
    assert "layer, T=1" in out
    assert "net, T=1" in out
    rows = [line.partition("  ")[0] for line in out.splitlines()]
    assert all(rows.count(contender.name) == 2 for contender in OURS)
    assert out.count("(1.00x)") >= 2
    assert rows.count("ReLU / ours, auto") == 2


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["layers"])
    assert "part 'layers' is unknown; allowed: layer, net" in capsys.readouterr().err


def test_how_much_faster_is_a_quotient_of_medians():
    text = faster(["a", "b"], {"T=1": ([1.0, 1.0], [0.2, 0.5])}, ["a"], ["b", "c"])
    assert "b / a" in text
    assert "2.50" in text


@pytest.mark.filterwarnings("ignore")  # theirs
def test_the_gated_neuron_of_spikingjelly_agrees_with_the_loop():
    pytest.importorskip("spikingjelly")
    form = glif.ours(4, 16, "reference")
    current, g = torch.randn(2, 4, 2, 16, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    theirs = glif.forward_backward(glif.spikingjelly(form, 4, 16), current, g)()
    torch.testing.assert_close(theirs, glif.forward_backward(form, current, g)())


def test_the_ways_through_the_recurrence_are_timed_after_they_were_compared():
    names, columns = recurrence.measure(64, 1, "cpu", channels=8)
    assert names == list(recurrence.WAYS)
    (first, medians), *_ = columns.values()
    assert all(time > 0 for time in first + medians)


def test_a_wrong_way_through_the_recurrence_stops_the_run(monkeypatch):
    monkeypatch.setitem(recurrence.WAYS, "other", lambda a, b: recurrence.convolution(a, b) + 1)
    with pytest.raises(RuntimeError, match="other differs from the loop"):
        recurrence.measure(16, 1, "cpu", channels=4)


def test_the_net_keeps_less_with_our_neuron_than_with_the_loop():
    ours, loop = (memory.net_memory(name, 2) for name in ("ours, auto", "plain PyTorch loop"))
    assert ours["saved"] < loop["saved"]


def test_an_online_rule_keeps_as_much_at_more_steps_and_backpropagation_more():
    online, through_time = ([memory.rule_memory(name, steps)["saved"] for steps in (1, 3)] for name in ("ottt", "stbp"))
    assert online[1] <= 1.1 * online[0]
    assert through_time[1] > 2 * through_time[0]


def test_what_a_process_of_its_own_found_comes_back_and_its_failure_is_told():
    found = memory.measured("rule", "ottt", 1)
    assert found["saved"] > 0
    with pytest.raises(RuntimeError, match="nobody at 1 steps"):
        memory.measured("rule", "nobody", 1)
