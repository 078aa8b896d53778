"""What every plugin is: a class with a ``Card`` that says where it comes from and what it claims.

A plugin is found by name without being imported, so the name must be a string literal in the class body::

    class Ottt(Method):
        card = Card(name="ottt", title="Online Training Through Time ...", ...)

Its settings live in a nested ``Options`` model; every field has a default, a type and a description, so that
``--set first_trace=true`` and ``--method "ottt[update=online]"`` are checked before anything runs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class UsageError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what is allowed."""


class UnfitError(UsageError):
    """An option of a method that its task has no use for; other tasks may have. The pair is left out with this as the reason."""


class DataError(UsageError):
    """A data file is missing, damaged or not what it should be; the message names the file and says what to do."""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest allowed name, or the list of allowed names."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; allowed: {', '.join(names)}" if names else "; none is known"


# What a property expects of its metric: more or less than that of ``against``, a bound, or how it goes over time steps, depth or an option.
EXPECTED = re.compile(
    r"(?P<than>(not )?(higher|lower))|(?P<bound>at most|at least|equal) (?P<value>[\d.]+)|"
    r"(?P<growth>constant|linear|falls|does not fall|does not grow) over (?P<over>\w+)"
)


@dataclass(frozen=True)
class Claim:
    """One figure or property that a paper states, in a form that can be measured again.

    ``kind`` says how ``value`` is to be read: ``value`` (the metric itself), ``ratio`` (metric of this method over
    the metric of ``against``), ``difference`` (metric minus that of ``against``, in the metric's unit) or
    ``property`` (a statement without a number, for example "constant in T"; then ``value`` is None).
    """

    metric: str  # a name of the metric registry (harness/metrics.py), e.g. "test_accuracy"
    kind: Literal["value", "ratio", "difference", "property"]
    value: float | None
    task: str  # the task of the paper, e.g. "static/cifar10"; it need not exist here
    setting: str  # network, time steps and whatever else decides the figure; of "T=6" in it, 6 is read as the number of time steps
    source: str  # where the figure was read
    against: str | None = None  # the plugin compared with, e.g. "stbp" or "glif[neuron=lif]"; None for a plain value
    expect: str = ""  # of a property: what fits ``EXPECTED``, which says how it is measured; empty if its words cannot be
    variant: str = ""  # the plugin with the options that the claim is about, e.g. "t_revsnn[division=step]"; empty: without any
    figure: str = ""  # path in the record of what is measured in place of the metric itself, e.g. "report.conversion_loss"; same unit
    networks: tuple[str, ...] = ()  # options that give the published network, "net=34": here, and in ``against`` if those are others
    instead: str = ""  # plugin that stands in for ``against`` where that was not run; then nothing is measured as claimed
    unmeasured: str = ""  # of a property that expects nothing: why records do not show it
    tested: str = ""  # test that proves a property which records cannot show, e.g. "tests/methods/test_ottt.py::test_..."

    def __post_init__(self) -> None:
        """Raise ValueError where the parts contradict each other."""
        if self.kind not in ("value", "ratio", "difference", "property"):
            raise ValueError(f"claim kind {self.kind!r} is unknown; allowed: value, ratio, difference, property")
        if (self.value is None) != (self.kind == "property"):
            raise ValueError(f"a claim of kind {self.kind!r} {'has no' if self.kind == 'property' else 'needs a'} value")
        expected = EXPECTED.fullmatch(self.expect)
        if self.expect and (self.kind != "property" or not expected):
            words = "[not] higher, [not] lower; at most, at least, equal N; constant, linear, falls, does not fall, does not grow over AXIS"
            raise ValueError(f"expect = {self.expect!r} is for properties, and one of: {words}")
        if expected and expected["than"] and self.against is None:
            raise ValueError(f"a claim that expects {self.expect!r} must say what it is against")
        if "'" in self.figure:
            raise ValueError(f"figure = {self.figure!r} is no path in a record; keys with other signs than letters stand in double quotes")
        if self.kind in ("ratio", "difference") and self.against is None:
            raise ValueError(f"a claim of kind {self.kind!r} must say what it is against")

    @property
    def steps(self) -> tuple[int | None, int | None]:
        """Return the time steps that the setting names: those of this plugin, and if it names two those of ``against``; else None."""
        found = [int(number) for number in re.findall(r"\bT=(\d+)\b", self.setting)]
        return found[0] if found else None, found[1] if len(found) == 2 and self.against else None


@dataclass(frozen=True)
class Card:
    """Where a method or probe comes from and what it is compared with."""

    name: str  # what the command line calls it; lower case, no spaces
    title: str  # title of the paper
    authors: str
    venue: str
    year: int
    family: str  # e.g. "direct", "online", "conversion", "block-wise", "architecture", "neuron", "normalisation"
    summary: str  # one sentence: what the method is about
    compared_with: tuple[str, ...] = ()  # names of plugins that are its baselines
    baseline: str = ""  # what its main claim is measured against on the same backbone and budget, e.g. "glif[neuron=lif]"
    claims: tuple[Claim, ...] = ()
    reconstructed: str = ""  # which parts are not stated by the sources but reconstructed or ours; empty if none


@dataclass(frozen=True)
class ProbeCard(Card):
    """The card of a probe; a class of its own so that the registry can tell the two without importing.

    Where a probe's name stands for a method, ``run -m crossbar``, it means ``applied_to`` with the probe attached, at each of ``at_steps``.
    """

    applied_to: str = "stbp"
    at_steps: tuple[int, ...] = ()  # numbers of time steps; empty: as without the probe. Data with a time axis of their own keep it


class Options(BaseModel):
    """Base of a plugin's settings: typed, frozen, and closed (an unknown name is an error).

    On the command line the parts of a tuple are joined by ``/``: ``multi_spike_exact[hidden=400/400]``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        tuples = {name for name, field in cls.model_fields.items() if get_origin(field.annotation) is tuple}
        return {name: value.split("/") if name in tuples and isinstance(value, str) else value for name, value in given.items()}


def written(value: Any) -> str:
    """Return the value of an option as it is written on the command line."""
    if isinstance(value, (list, tuple)):
        return "/".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class Plugin:
    """Base of methods, probes and tasks: what has a card and options."""

    card: ClassVar[Card]

    class Options(Options):
        """Settings of the plugin; override with typed fields that have defaults."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """Resolve ``options`` (texts are converted to the field's type); raise UsageError if one does not fit."""
        self.options = self.parse_options(options or {})

    @classmethod
    def parse_options(cls, given: Mapping[str, Any]) -> Any:
        """Return the resolved ``Options``; raise UsageError naming the option, the value and what is allowed."""
        fields = cls.Options.model_fields
        for name in given:
            if name not in fields:
                raise UsageError(f"{cls.card.name} has no option {name!r}{did_you_mean(name, fields)}")
        try:
            return cls.Options(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "options"
            raise UsageError(f"{cls.card.name}: option {name} = {first['input']!r}: {first['msg']}") from None
