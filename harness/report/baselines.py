"""Which row of a table each row is compared with: another method, cut down and trained like the row itself.

Where the card of ``glif`` names the baseline ``glif[neuron=lif]``, a row ``glif[depth=2]@T=8`` is compared with
``glif[depth=2,neuron=lif]@T=8``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.plugin import UsageError
from harness.spec import OWN, parse_variant

if TYPE_CHECKING:
    from harness.registry import Registries


def baselines(against: str, labels: Iterable[str], registries: Registries) -> dict[str, str]:
    """Return ``{label: label of what it is compared with}``: the method ``against``, or if that is ``"own"`` the baseline of each card.

    Left out are methods that are not here and, for ``"own"``, those whose card names none.
    """
    found = {}
    for label in labels:
        variant, at, steps = label.partition("@")
        try:
            name, given = parse_variant(variant)
            kind = registries.methods.load(name)
        except UsageError:  # a record of a method that is not here
            continue
        if text := kind.card.baseline if against == OWN else against:
            base, options = parse_variant(text)
            cut = {key: value for key, value in given.items() if key not in kind.Options.model_fields}  # not of the method: training, depth
            inside = ",".join(f"{key}={value}" for key, value in sorted({**options, **cut}.items()))
            found[label] = base + (f"[{inside}]" if inside else "") + at + steps
    return found
