"""Reads cards from the source of plugins, without importing them: reports of ten thousand records need every card and no torch.

``card = Card(name="ottt", ..., claims=(Claim(...), ...))`` in a class body is evaluated by itself, with the assignments and imports at
the top of the file that its names need, and theirs; nothing else of the file runs. Only ``harness.plugin`` may be imported by them. A card
that needs more (a function of the file, a constant of another module) is not read here but by importing its plugin::

    read_card(Path("methods/ottt.py"), "Ottt")   # the Card, or None
"""

from __future__ import annotations

import ast
import builtins
from functools import lru_cache
from pathlib import Path

from harness.plugin import Card


@lru_cache(maxsize=128)  # about as many files as there are plugins: their names are sought in the same texts
def parsed(text: str) -> ast.Module:
    """Return the syntax tree of a file's text; raise SyntaxError or ValueError if it is not Python."""
    return ast.parse(text)


def read_card(path: Path, qualname: str) -> Card | None:
    """Return the card of a class in a file; None if it cannot be had without importing the file."""
    try:
        tree = parsed(path.read_text(encoding="utf-8"))
        owner = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == qualname)
        given = next(node for node in owner.body if "card" in _bound(node))
        namespace: dict[str, object] = {}
        exec(compile(ast.Module([*_needed(given, tree), given], []), str(path), "exec"), namespace)
    except Exception:  # code of others: importing it says what is wrong with it
        return None
    card = namespace.get("card")
    return card if isinstance(card, Card) else None


def _bound(node: ast.stmt) -> set[str]:
    """Return the names that a statement gives a value to."""
    if isinstance(node, ast.ImportFrom | ast.Import):
        return {alias.asname or alias.name for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _needed(node: ast.stmt, tree: ast.Module) -> list[ast.stmt]:
    """Return the statements at the top of a file that a statement needs, in order; raise LookupError where they do not suffice."""
    found: set[int] = set()
    todo: list[ast.AST] = [node.value] if isinstance(node, ast.Assign | ast.AnnAssign) and node.value else []
    while todo:
        names = [each for each in ast.walk(todo.pop()) if isinstance(each, ast.Name)]
        local = {each.id for each in names if isinstance(each.ctx, ast.Store)}  # of comprehensions
        for name in {each.id for each in names} - local - set(dir(builtins)):
            places = [place for place, each in enumerate(tree.body) if name in _bound(each)]
            if not places:
                raise LookupError(name)
            for place in set(places) - found:
                source = tree.body[place]
                if isinstance(source, ast.Import) or (isinstance(source, ast.ImportFrom) and source.module != "harness.plugin"):
                    raise LookupError(name)
                found.add(place)
                if not isinstance(source, ast.ImportFrom):
                    todo.append(source)
    return [tree.body[place] for place in sorted(found)]
