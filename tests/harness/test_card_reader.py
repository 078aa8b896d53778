"""Cards are read from source as importing would give them."""

import subprocess
import sys

import pytest

from harness.card_reader import read_card
from harness.registry import Registries

REGISTRIES = Registries()


@pytest.mark.parametrize("kind", ["methods", "probes"])
def test_a_card_read_from_source_is_that_of_the_imported_class(kind):
    registry = getattr(REGISTRIES, kind)
    for name in registry.names():
        entry = registry.entry(name)
        assert entry.path is not None
        assert read_card(entry.path, entry.qualname) == registry.load(name).card


def test_cards_are_had_without_torch():
    code = (
        "import sys; from harness.registry import Registries; r = Registries();"
        "assert [r.methods.card(n).name for n in r.methods.names()] == r.methods.names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


CARD = 'card = Card(name="mine", title="-", authors="-", venue="-", year=YEAR, family="testing", summary="-")'


def test_constants_of_the_file_are_followed(plugin_file):
    path = plugin_file(f"from harness.plugin import Card\nSTART = 2000\nYEAR = START + 26\nclass Mine:\n    {CARD}\n")
    card = read_card(path, "Mine")
    assert card is not None and card.year == 2026


def test_nothing_else_of_the_file_runs(plugin_file):
    text = f"from harness.plugin import Card\nYEAR = 1\nraise SystemExit\nclass Mine:\n    {CARD}\n    raise SystemExit\n"
    card = read_card(plugin_file(text), "Mine")
    assert card is not None and card.name == "mine"


@pytest.mark.parametrize("start", ["from elsewhere import YEAR", "import YEAR", "def YEAR(): pass", ""])
def test_a_card_that_needs_more_than_constants_is_left_to_importing(plugin_file, start):
    assert read_card(plugin_file(f"from harness.plugin import Card\n{start}\nclass Mine:\n    {CARD}\n"), "Mine") is None


def test_a_card_that_cannot_be_read_is_that_of_the_imported_class(plugin_file):
    text = """
    from harness.method import Method
    from harness.plugin import Card

    def year():
        return 2026

    class Mine(Method):
        card = Card(name="mine", title="-", authors="-", venue="-", year=year(), family="testing", summary="-")
    """
    registries = Registries([plugin_file(text)])
    assert read_card(registries.methods.entry("mine").path, "Mine") is None
    assert registries.methods.card("mine").year == 2026
