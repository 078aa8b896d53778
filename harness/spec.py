"""What a run is: ``RunSpec``, and how texts from the command line become one.

A spec says what the user asked for; everything left open is resolved by method and task (see ``harness/identity.py``).
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.plugin import UsageError, written


class RunSpec(BaseModel):
    """One cell of the matrix: this method on this task under these conditions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(description="name of the method")
    options: dict[str, Any] = Field({}, description="options of the method that differ from its defaults")
    task: str = Field(description="name of the task, suite/name, with options that differ from its defaults in brackets")
    track: Literal["matched", "recipe"] = Field("matched", description="settings shared by all methods, or the method's own")
    budget: str = Field("smoke", description="how much a run may spend: smoke, laptop, paper")
    steps: int | None = Field(None, description="time steps asked for; None leaves them to method and task", ge=1)
    seed: int = Field(0, description="seed of weights, data order and noise", ge=0)
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="autocast type of the training steps")
    samples: int | None = Field(
        None, description="samples to train on, the first of the split; as many to test on. None: the budget's", ge=2
    )
    depth: int | None = Field(None, description="how many times deeper the reference network is; None for the budget's", ge=1)
    training: dict[str, Any] = Field({}, description="fields of the training settings that were set by hand")
    threads: int = Field(1, description="CPU threads of the run", ge=1)
    tuning: str | None = Field(None, description="how settings were chosen, if they were tuned")
    probes: tuple[str, ...] = Field(
        (), description="probes to apply to the network, with options that differ from their defaults in brackets"
    )

    @property
    def label(self) -> str:
        """Return the method as tables show it: ``ottt[update=online]``, with ``@T=8`` when steps were asked for."""
        cut = {name: value for name, value in (("samples", self.samples), ("depth", self.depth)) if value is not None}
        options = ",".join(f"{k}={written(v)}" for k, v in sorted({**self.options, **self.training, **cut}.items()))
        return self.method + (f"[{options}]" if options else "") + (f"@T={self.steps}" if self.steps else "")


OWN = "own"  # what ``--against`` takes in place of a method: for each method the baseline that its card names


def split_list(text: str) -> list[str]:
    """Split at commas outside brackets: ``"ottt[update=online,leak=0.5],stbp"`` gives two names."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def parse_settings(texts: list[str]) -> dict[str, str]:
    """Return ``{"lr": "0.1"}`` of ``["lr=0.1"]``; raise UsageError for one that is not ``key=value``."""
    found = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not re.fullmatch(r"[A-Za-z_]\w*", key.strip()) or not value.strip():
            raise UsageError(f"{text!r} is not a setting; write key=value, for example lr=0.1")
        found[key.strip()] = value.strip()
    return found


def parse_variant(text: str, kind: str = "method") -> tuple[str, dict[str, str]]:
    """Return name and options of ``"ottt[update=online]"``; raise UsageError if the brackets do not close. ``kind`` is for the message."""
    match = re.fullmatch(r"([^\[\]]+)(?:\[([^\[\]]*)\])?", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a {kind}; write name or name[option=value,...]")
    return match[1].strip(), parse_settings(split_list(match[2] or ""))
