"""Plugins are found by name without being imported, and every way to get that wrong is told in one line."""

import importlib.metadata
import sys

import pytest

from harness import registry
from harness.plugin import UsageError
from harness.registry import Registries, module_of_file, scan

METHOD = """
    from harness.plugin import Card
    from methods.base import SpikingMethod

    class {name}(SpikingMethod):
        card = Card(name="{card}", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")
"""


def method(card, name="Mine"):
    return METHOD.format(card=card, name=name)


def test_the_project_has_methods_and_tasks():
    registries = Registries()
    assert {"stbp", "ann"} <= set(registries.methods.names())
    assert "static/digits" in registries.tasks.names()
    assert registries.methods.names() == sorted(registries.methods.names())


@pytest.mark.parametrize("accident", ["raise RuntimeError('boom')", "import no_such_package", "undefined_name", "raise SystemExit(1)"])
def test_a_file_that_fails_on_import_is_listed_and_refused_with_its_place_when_loaded(plugin_file, accident):
    path = plugin_file(f"{accident}\n{method('broken')}".replace("\n    ", "\n"))
    registries = Registries([path])
    assert "broken" in registries.methods.names()
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.startswith("class"))
    with pytest.raises(UsageError, match=rf"method 'broken' \({path.parent.name}/mine.py:{line}\) cannot be imported: ") as error:
        registries.methods.load("broken")
    assert str(path.parent.parent) not in str(error.value)
    assert module_of_file(path) not in sys.modules


def test_listing_imports_nothing(plugin_file, tmp_path):
    path = plugin_file(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n{method('quiet')}".replace("\n    ", "\n"))
    registries = Registries([path])
    registries.methods.names()
    registries.methods.origin("quiet")
    assert not (tmp_path / "imported").exists()
    registries.methods.load("quiet")
    assert (tmp_path / "imported").exists()


def test_a_plugin_of_a_file_is_loaded_once(plugin_file):
    path = plugin_file(method("mine"))
    assert Registries([path]).methods.load("mine") is Registries([path]).methods.load("mine")


def test_an_unknown_name_says_which_one_was_probably_meant():
    with pytest.raises(UsageError) as error:
        Registries().methods.entry("otttt")
    assert str(error.value) == "unknown method 'otttt'; did you mean 'ottt'?"


def test_origin_is_file_and_line(plugin_file):
    registries = Registries([plugin_file(method("mine"))])
    assert registries.methods.origin("mine").endswith("/mine.py:5")
    assert registries.methods.origin("stbp").startswith("methods/stbp.py:")


def test_two_plugins_of_one_name_are_refused_naming_both_files(plugin_file):
    one, two = plugin_file(method("twin"), "one/first.py"), plugin_file(method("twin"), "two/second.py")
    with pytest.raises(UsageError, match=r"method 'twin' is registered twice: by one/first.py:5 and by two/second.py:5"):
        Registries([one, two])


def test_a_plugin_cannot_take_the_name_of_a_project_method(plugin_file):
    with pytest.raises(UsageError, match=r"method 'stbp' is registered twice: by methods/stbp.py:\d+ and by .*/mine.py:5"):
        Registries([plugin_file(method("stbp"))])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read plugin file gone.py: No such file"):
        Registries([tmp_path / "gone.py"])


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot read plugin file"):
        Registries([tmp_path])


@pytest.mark.parametrize("content", [b"class :", b"\xff\xfe\x00", b"a = 1\x00"])
def test_a_file_that_is_not_python_is_refused(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="plugin file mine.py is not valid Python"):
        Registries([path])


@pytest.mark.parametrize("text", ["x = 1", "class A:\n    card = 3", "class A:\n    card = Card(name=NAME)", "class A:\n    card: Card"])
def test_a_file_without_a_plugin_is_refused(plugin_file, text):
    with pytest.raises(UsageError, match="plugin file mine.py defines no plugin"):
        Registries([plugin_file(text)])


def test_the_card_may_be_annotated_qualified_and_positional(plugin_file):
    path = plugin_file("class A:\n    card: ClassVar[Card] = plugin.Card('one', 'title')\n\nclass B:\n    card = Card(name='two')\n")
    assert [(entry.name, entry.qualname, entry.line) for entry in scan(path, "m", "Card")] == [("one", "A", 1), ("two", "B", 4)]


def test_cards_tell_methods_probes_and_tasks_apart(plugin_file):
    path = plugin_file(
        "class A:\n    card = Card(name='a')\nclass B:\n    card = ProbeCard(name='b')\nclass C:\n    card = TaskCard(name='s/c')\n"
    )
    registries = Registries([path])
    assert "a" in registries.methods.names() and "b" not in registries.methods.names()
    assert "b" in registries.probes.names() and "a" not in registries.probes.names()
    assert "s/c" in registries.tasks.names()


def test_a_class_that_is_no_method_is_refused_when_loaded(plugin_file):
    path = plugin_file("from harness.plugin import Card\n\nclass A:\n    card = Card('a', '-', '-', '-', 1, '-', '-')\n")
    with pytest.raises(UsageError, match=r"method 'a' \(.*mine.py:3\) is not a Method"):
        Registries([path]).methods.load("a")


@pytest.fixture
def installed(monkeypatch):
    """Pretend that a package with an entry point is installed."""

    def install(name, value):
        point = importlib.metadata.EntryPoint(name, value, "spikebench.methods")
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "spikebench.methods" else [])

    return install


def test_an_entry_point_of_an_installed_package_is_a_plugin(installed):
    from methods.stbp import Stbp

    installed("elsewhere", "methods.stbp:Stbp")
    registries = Registries()
    assert registries.methods.load("elsewhere") is Stbp
    assert registries.methods.origin("elsewhere") == "methods.stbp:Stbp"


@pytest.mark.parametrize("value", ["no_such_package.sub:Mine", "methods.stbp:Gone"])
def test_an_entry_point_that_leads_nowhere_is_refused_when_loaded(installed, value):
    installed("elsewhere", value)
    registries = Registries()
    assert "elsewhere" in registries.methods.names()
    with pytest.raises(UsageError, match=rf"method 'elsewhere' \({value}\) cannot be imported"):
        registries.methods.load("elsewhere")


def test_an_entry_point_with_a_name_that_is_taken_names_both(installed):
    installed("stbp", "other.package:Stbp")
    with pytest.raises(UsageError, match=r"registered twice: by methods/stbp.py:\d+ and by other.package:Stbp"):
        Registries()
