"""Writes the site: reads the records once, makes what each page shows, fills the templates.

The same records give the same bytes: no page tells the time, but that of the newest record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from harness.environment import git_state
from harness.plugin import UsageError
from harness.registry import Registries
from harness.report import claims, curves, history, probes
from harness.report.baselines import baselines
from harness.report.site import assets, changes, fields, figures, growth, leaderboard, methods, probed, statements
from harness.report.site.folder import replaced
from harness.report.site.leaderboard import Grid
from harness.report.site.links import file_names
from harness.report.site.packed import as_block, as_json, pack
from harness.report.site.runs import INDEX, SHARD, Runs, read
from harness.report.table import DEFAULT_METRICS, Table, build
from harness.spec import OWN, parse_variant
from harness.store import Store

TEMPLATES = Path(__file__).with_name("templates")
Cannot = Callable[[str, str], str | None]  # method, task -> reason
COLUMNS = tuple(dict.fromkeys((*DEFAULT_METRICS, *methods.PRINTED, *figures.COSTS)))


@dataclass(frozen=True)
class Written:
    """What was written: the page to open, how much, and which files held no readable record."""

    index: Path
    runs: int
    files: int
    size: int  # bytes
    broken: list[str]


def write(store: Store, registries: Registries, output: Path, cannot: Cannot | None = None) -> Written:
    """Write the site of a store's records to ``output``, which appears whole or not at all.

    ``cannot`` says why a method cannot do a task, both by name; without it the pages of tasks name no such methods.
    Raises UsageError if there is no record, or if ``output`` holds something that is not a site.
    """
    with replaced(output) as folder:
        runs = read(store)
        if not runs.runs:
            told = f"; {len(runs.broken)} file(s) cannot be read" if runs.broken else ""
            raise UsageError(f"no record in {store.folder}{told}; run something first (`spikebench bench`)")
        _Site(store, registries, runs, folder, cannot).write()
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    return Written(output / "index.html", len(runs.runs), len(files), size, runs.broken)


class _Site:
    """The pages, and what several of them share."""

    def __init__(self, store: Store, registries: Registries, runs: Runs, folder: Path, cannot: Cannot | None) -> None:
        self.store, self.registries, self.runs, self.folder, self.cannot = store, registries, runs, folder, cannot
        keys = set(runs.by_key)
        own = baselines(OWN, {run.label for run in runs.runs}, registries)
        whole = {run.key for run in runs.runs if not run.short}
        wanted = {"metrics": COLUMNS, "against": own, "extra": curves.PATHS, "verified": store.verified()}
        self.tables = leaderboard.ordered(build(store, keys=whole, **wanted)[0] if whole else [])
        short = build(store, keys=keys - whole, **wanted)[0] if keys - whole else []  # they compete with no whole run
        self.short = leaderboard.ordered(short)
        self.cards = methods.cards(registries, {run.method for run in runs.runs})
        self.families = {name: card.family for name, card in self.cards.items() if card}
        self.task_pages = file_names(table.about["task"] for table in [*self.tables, *self.short])
        self.method_pages = file_names(self.cards)
        self.findings = claims.collect(store, registries)
        self.probed = probed.by_probe(probes.build(store, registries, keys=keys))
        self.jinja = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.jinja.filters |= {"block": as_block, "breaks": _breaks}
        self.jinja.globals |= self._about()

    def _about(self) -> dict[str, Any]:
        """Return what stands at the foot of every page."""
        found = self.runs.runs
        days = sorted(run.started[:10] for run in found)
        commit, dirty = git_state()
        try:
            release = version("spikebench")
        except PackageNotFoundError:
            release = ""
        return {
            "all_runs": len(found),
            "finished": sum(run.status == "ok" for run in found),
            "days": days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}",
            "devices": sorted({run.device for run in found}),
            "release": release,
            "commit": (commit[:8] + ("+" if dirty else "")) if commit else "",
            "broken": self.runs.broken,
        }

    def write(self) -> None:
        """Write every page and what it loads."""
        assets.copy(self.folder / "static")
        self._page("index", "index.html", "Leaderboard", **self._overview())
        for task, found in leaderboard.by_task([*self.tables, *self.short]).items():
            self._page("task", f"tasks/{self.task_pages[task]}.html", task, **self._task(task, found))
        self._page("methods", "methods.html", "Methods", grid=methods.summary(self.cards, self.findings, self.tables, self.method_pages))
        for name in self.cards:
            self._page("method", f"methods/{self.method_pages[name]}.html", name, **self._method(name))
        shown = statements.grid(self.findings, self.method_pages, "")
        self._page("claims", "claims.html", "Claims", grid=shown, summary=statements.summary(self.findings), verdicts=claims.VERDICTS)
        studies = growth.studies(self.store, set(self.runs.by_key))
        found = [(study, growth.grid(study), growth.figure(study)) for study in studies]
        self._page("scaling", "scaling.html", "Scaling", studies=found)
        self._page("history", "history.html", "History", **self._history())
        self._write_runs()

    def _page(self, template: str, path: str, title: str, **given: Any) -> None:
        root = "../" * path.count("/")
        text = self.jinja.get_template(f"{template}.html.j2").render(root=root, title=title, page=template, **given)
        self._file(path, text)

    def _file(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="replace")

    def _overview(self) -> dict[str, Any]:
        tasks = {table.about["task"] for table in self.tables or self.short}
        return {
            "grid": leaderboard.overview(self.tables or self.short, self.task_pages),
            "tasks": len(tasks),
            "methods": len({run.method for run in self.runs.runs}),
            "claims": statements.summary(self.findings),
        }

    def _task(self, task: str, found: list[tuple[int, Table]]) -> dict[str, Any]:
        shown = []
        for place, table in found:
            printed = replace(table, metrics=[m for m in table.metrics if m.name in DEFAULT_METRICS])
            short = place >= len(self.tables)
            plots = [] if short else [figures.pareto(table), figures.over_steps(table), figures.training(table, self.runs)]
            shown.append(
                {
                    "place": place,
                    "table": table,
                    "short": short,
                    "grid": leaderboard.grid(printed, self.families, self.method_pages, "../"),
                    "notes": table.notes(),
                    "legend": table.legend(),
                    "provenance": leaderboard.provenance(table, self.runs),
                    "plots": [plot for plot in plots if plot],
                }
            )
        return {"card": self._task_card(task), "tables": shown, "refusals": self._refusals(task, [table for _, table in found])}

    def _refusals(self, task: str, tables: list[Table]) -> Grid | None:
        """Return the methods of other tasks that cannot do this one, with the reason; None if there is none."""
        if self.cannot is None:
            return None
        ran = {leaderboard.method_of(row) for table in tables for row in table.rows}
        others = sorted({run.method for run in self.runs.runs} - ran)
        return methods.refusals({name: why for name in others if (why := self.cannot(name, task))}, self.method_pages, "../")

    def _task_card(self, task: str) -> Any:
        try:
            return self.registries.tasks.card(parse_variant(task, "task")[0])
        except UsageError:  # a record of a task that is not here
            return None

    def _method(self, name: str) -> dict[str, Any]:
        found = methods.rows_of(name, self.tables) or [
            (len(self.tables) + place, table, rows) for place, table, rows in methods.rows_of(name, self.short)
        ]
        own = [each for each in self.findings if each.method == name]
        return {
            "card": self.cards[name],
            "name": name,
            "claims": statements.grid(own, self.method_pages, "../"),
            "claim_summary": statements.summary(own),
            "probe": name in self.registries.probes.names() or name in self.probed,
            "probed": [(table, probed.grid(table, self.method_pages, "../")) for table in self.probed.get(name, [])],
            "results": methods.results(found, self.task_pages, "../"),
            "ablations": methods.ablations(found, self.families, self.method_pages, "../"),
            "task_pages": self.task_pages,
            "pages": self.method_pages,
            "notes": [(table.title, note) for _, table, rows in found for note in replace(table, rows=rows, reasons={}).notes()],
        }

    def _history(self) -> Mapping[str, Any]:
        found = changes.moving(history.series(self.store, changes.METRICS))
        return {"grid": changes.grid(found), "figure": changes.figure(found), "series": len(found)}

    def _write_runs(self) -> None:
        described = fields.dictionary()
        names = ("key", "label", "method", "task", "budget", "track", "device", "kind", "precision", "threads", "seed", "status")
        rows = [
            [*(getattr(run, name) for name in names), self.families.get(run.method, ""), run.metric, run.started, run.commit, *run.figures]
            for run in self.runs.runs
        ]
        columns = [*names, "family", "metric", "started", "commit", *INDEX]
        self._file("data/runs.js", pack("runs", as_json({"columns": columns, "rows": rows, "shard": SHARD})))
        for name, text in self.runs.shards():
            self._file(f"data/{name}.js", pack(name, text))
        self._page("runs", "runs.html", "Runs", dictionary=described)
        self._page("run", "run.html", "Run", dictionary=described, method_pages=self.method_pages, task_pages=self.task_pages)


def _breaks(text: str) -> Markup:
    """Return a text, escaped, that may break into lines after the signs inside names: ``a[b=c,d=e]``."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=\w\[)|(?<=[,/_])(?=\S)", text))
