"""The scripts and style sheets of the site: ours, plotly's, and DataTables as the package ``itables`` brings it.

The bundle of ``itables`` is an ES module, and browsers do not load modules from the file system; so its last words, ``export{...}``, become
two names on ``window`` and the rest stands inside a function.
"""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from pathlib import Path

OURS = Path(__file__).with_name("static")
EXPORT = re.compile(r"export\s*\{([^{}]*)\};?")


def classic(module: str) -> str:
    """Return the DataTables module as a plain script that sets ``window.DataTable``; raise ValueError if it is none that is known."""
    found = list(EXPORT.finditer(module))
    names = dict(reversed(part.split(" as ")) for part in found[0][1].split(",") if " as " in part) if len(found) == 1 else {}
    if "default" not in names:
        raise ValueError("the script that itables brings does not export DataTables as it used to")
    before, after = module[: found[0].start()], module[found[0].end() :]
    return f"(()=>{{{before}\nwindow.DataTable={names['default']};}})();\n{after}"


def copy(folder: Path) -> None:
    """Write all scripts and style sheets to a new folder."""
    from plotly.offline import get_plotlyjs  # takes a while to import

    shutil.copytree(OURS, folder)
    (folder / "plotly.js").write_text(get_plotlyjs(), encoding="utf-8")
    bundle = files("itables") / "html"
    (folder / "tables.js").write_text(classic((bundle / "dt_bundle.js").read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "tables.css").write_text((bundle / "dt_bundle.css").read_text(encoding="utf-8"), encoding="utf-8")
