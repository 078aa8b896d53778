"""Finds methods, probes and tasks by name, and imports nothing until one is asked for.

Three sources, one index: modules of the project's own folders, entry points of installed packages, and files given with
``--plugin``. In a file, a plugin is a class whose body says ``card = Card(name="...")`` (``ProbeCard`` for probes, ``TaskCard`` for
tasks); the name is read from the source text, so listing is quick and has no side effects::

    registries = Registries(plugin_files=["mine.py"])
    registries.methods.load("ottt")      # the class; UsageError with the nearest name if there is none
    registries.methods.origin("ottt")    # "methods/ottt.py:41"
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from harness.card_reader import parsed, read_card
from harness.plugin import Card, UsageError, did_you_mean
from harness.spec import parse_variant

if TYPE_CHECKING:  # torch takes longer to import than reports that need no plugin take to read their records
    import torch

    from harness.method import Method
    from harness.probe import Probe
    from harness.task import Task

P = TypeVar("P")


@dataclass(frozen=True)
class Entry:
    """Where a plugin is: module and class, and the file and line for messages."""

    name: str
    module: str
    qualname: str
    path: Path | None
    line: int = 0

    @property
    def place(self) -> str:
        """Return ``folder/file.py:line``, or the module for an entry point that was not read yet."""
        return f"{Path(self.path.parent.name) / self.path.name}:{self.line}" if self.path else f"{self.module}:{self.qualname}"


def scan(path: Path, module: str, card: str) -> list[Entry]:
    """Return the plugins that the file defines with a card class called ``card``; raise UsageError if it is not Python."""
    try:
        tree = parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read plugin file {path.name}: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or null bytes
        raise UsageError(f"plugin file {path.name} is not valid Python: {error}") from None
    found = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            if _assigned(statement) == "card":
                call = statement.value  # type: ignore[attr-defined]  # an assignment
                if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == card:
                    given = [k.value for k in call.keywords if k.arg == "name"] or call.args[:1]
                    if given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str):
                        found.append(Entry(given[0].value, module, node.name, path, node.lineno))
    return found


def _assigned(statement: ast.stmt) -> str | None:
    """Return the name that a statement gives a value to (``a = 1`` or ``a: int = 1``), or None."""
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0]) if len(statement.targets) == 1 else None
    return ast.unparse(statement.target) if isinstance(statement, ast.AnnAssign) else None


def module_of_file(path: Path) -> str:
    """Return the module name under which a ``--plugin`` file is imported; the same file gives the same name."""
    return f"spikebench_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


class Registry(Generic[P]):
    """All plugins of one kind."""

    def __init__(self, kind: str, base: str, card: str, package: str, group: str, files: Iterable[Path] = ()) -> None:
        """Index the package, the entry-point group and the files; raise UsageError if two plugins have one name.

        ``base``: the class that plugins of the kind derive from, ``module:name``.
        """
        self.kind, self._base = kind, base
        self._entries: dict[str, Entry] = {}
        for path, module in self._modules(package):
            for entry in scan(path, module, card):
                self._add(entry)
        for point in entry_points(group=group):
            self._add(Entry(point.name, point.module, point.attr, None))
        for path in files:
            for entry in scan(path, module_of_file(path), card):
                self._add(entry)

    @staticmethod
    def _modules(package: str) -> Iterable[tuple[Path, str]]:
        spec = importlib.util.find_spec(package)  # of a top-level package: finds, does not import
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).glob("*.py")):
                if path.stem != "__init__":
                    yield path, f"{package}.{path.stem}"

    def _add(self, entry: Entry) -> None:
        other = self._entries.get(entry.name)
        if other is not None:
            raise UsageError(f"{self.kind} {entry.name!r} is registered twice: by {other.place} and by {entry.place}")
        self._entries[entry.name] = entry

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._entries)

    def entry(self, name: str) -> Entry:
        """Return where the plugin is; raise UsageError with the nearest name if there is none."""
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def origin(self, name: str) -> str:
        """Return ``folder/file.py:line`` of the plugin."""
        return self.entry(name).place

    def load(self, name: str) -> type[P]:
        """Import the plugin and return its class; raise UsageError if it cannot be imported or is not of this kind."""
        entry = self.entry(name)
        try:
            found = getattr(self._import(entry), entry.qualname)
        except (Exception, SystemExit) as error:  # code of others may fail in any way, or be a script that exits
            raise UsageError(f"{self.kind} {name!r} ({entry.place}) cannot be imported: {type(error).__name__}: {error}") from error
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise UsageError(f"{self.kind} {name!r} ({entry.place}) is not a {self.base.__name__}")
        return found

    @cached_property
    def base(self) -> type[P]:
        """The class that plugins of the kind derive from."""
        module, _, name = self._base.partition(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]

    def card(self, name: str) -> Card:
        """Return the card of a plugin, read from its source where that suffices, which is a hundred times as fast as to import it."""
        entry = self.entry(name)
        return (entry.path and read_card(entry.path, entry.qualname)) or self.load(name).card  # type: ignore[attr-defined, return-value]

    @staticmethod
    def _import(entry: Entry) -> object:
        if entry.module in sys.modules:
            return sys.modules[entry.module]
        if entry.path is None or not entry.module.startswith("spikebench_plugin_"):
            return importlib.import_module(entry.module)
        spec = importlib.util.spec_from_file_location(entry.module, entry.path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{entry.path.name} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[entry.module] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[entry.module]
            raise
        return module


class Registries:
    """The three registries together, with the ``--plugin`` files that belong to them."""

    def __init__(self, plugin_files: Iterable[str | Path] = ()) -> None:
        """Index everything; raise UsageError for a file that is missing, is not Python or defines no plugin."""
        self.files = [Path(f) for f in plugin_files]
        for path in self.files:
            if not any(scan(path, "", card) for card in ("Card", "ProbeCard", "TaskCard")):
                raise UsageError(f'plugin file {path.name} defines no plugin: no class says card = Card(name="...")')
        self.methods: Registry[Method] = Registry("method", "harness.method:Method", "Card", "methods", "spikebench.methods", self.files)
        self.probes: Registry[Probe] = Registry("probe", "harness.probe:Probe", "ProbeCard", "methods", "spikebench.probes", self.files)

    @cached_property
    def tasks(self) -> Registry[Task]:
        """The registry of tasks, indexed when first asked for."""
        return Registry("task", "harness.task:Task", "TaskCard", "suites", "spikebench.tasks", self.files)

    def task(self, name: str, budget: str | None = None, device: torch.device | str = "cpu") -> Task:
        """Return the task ``"suite/name"`` or ``"suite/name[option=value,...]"`` with a budget; raise UsageError if there is none.

        Without a ``budget`` it is smoke, or the task's first if it has none of that name.
        """
        base, options = parse_variant(name, "task")
        kind = self.tasks.load(base)
        return kind(budget or ("smoke" if "smoke" in kind.budgets else next(iter(kind.budgets))), device, options)
