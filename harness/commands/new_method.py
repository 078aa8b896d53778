"""``spikebench new-method``."""

from __future__ import annotations

import keyword
import re
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import typer

from harness.plugin import UsageError
from harness.registry import Registries


def new_method(name: str, folder: Path | None) -> None:
    """Write a plugin file and its test from the templates; refuse to overwrite anything."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(f"{name!r} cannot be a method's name; use lower-case letters, digits and underscores, beginning with a letter")
    registries = Registries()
    if name in registries.methods.names():
        raise UsageError(f"method {name!r} exists already: {registries.methods.origin(name)}")
    checkout = Path("methods").is_dir() and Path("pyproject.toml").is_file() and folder is None
    plugin = (Path("methods") if checkout else folder or Path()) / f"{name}.py"
    test = (Path("tests") / "methods" if checkout else plugin.parent) / f"test_{name}.py"
    for path in (plugin, test, plugin.with_suffix("")):  # a folder of that name would hide the file from imports
        if path.exists():
            raise UsageError(f"{path} exists already; nothing was written")
    title = name.replace("_", " ").capitalize()
    class_name = "".join(part.capitalize() for part in name.split("_"))
    values = {"name": name, "title": title, "class_name": class_name, "year": str(datetime.now(UTC).year)}
    for path, template in ((plugin, "method.txt"), (test, "test.txt")):
        text = (files("harness") / "templates" / template).read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace("{" + key + "}", value)
        if checkout:  # found by name; the line and import are for a file that lies anywhere
            text = "".join(line for line in text.splitlines(keepends=True) if "plugin_files" not in line)
            text = text.replace("from pathlib import Path\n\n", "")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None
    given = "" if checkout else f" --plugin {plugin}"
    typer.echo(f"Wrote {plugin} and {test}. Next:")
    typer.echo(f"  spikebench check {name}{given}")
    typer.echo(f"  spikebench run --task static/digits --method {name},stbp --seeds 3{given}")
