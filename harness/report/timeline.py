"""Text and pictures of a metric over commits (``harness.report.history``): a table per series, or one drawing of all.

    print(render(found, "terminal"))
    save(draw(found), Path("history"), ("svg",))

A change point is marked in words: ``▼ worse``, with the levels before and after it. What texts of records hold is shown as text.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from harness.metrics import MISSING, Scale, format_value, scale_for
from harness.plugin import UsageError
from harness.printable import printable
from harness.report.changes import Change
from harness.report.history import Point, Series
from harness.report.plot.figure import COLOURS, LINES, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {"terminal": "simple", "github": "github", "csv": "csv"}
SUBJECT = 44  # characters of a commit message that a table shows
PANELS = 12  # of a drawing, at most
TICKS = 24  # names of commits below a drawing


def render(found: Sequence[Series], style: str) -> str:
    """Return all series as text in one of ``FORMATS``; in csv they are one table with values in the metric's own unit."""
    if style == "csv":
        return _csv(found)
    long, short = [each for each in found if len(each.points) > 1], [each for each in found if len(each.points) == 1]
    return "\n\n".join([*(_table(each, style) for each in long), *([_singles(short, style)] if short else [])])


def words(change: Change, each: Series, scale: Scale) -> str:
    """Return ``▼ worse: 97.4 to 91.2 %`` of a change point."""
    before, after = (
        format_value(each.metric, value, scale=scale).removesuffix(f" {scale.unit}") for value in (change.before, change.after)
    )
    if before == after:  # exact differences may be below the digits that are shown
        before, after = f"{change.before / scale.size:.9g}", f"{change.after / scale.size:.9g}"
    unit = f" {scale.unit}" if scale.unit else ""
    return f"{'▲' if change.after > change.before else '▼'} {'better' if change.better else 'worse'}: {before} to {after}{unit}"


def _table(each: Series, style: str) -> str:
    scale = scale_for(each.metric, [point.mean for point in each.points])
    marks = {id(each.measured[change.index]): words(change, each, scale) for change in each.changes}
    lines, before = [], None
    for point in each.points:
        value = format_value(each.metric, point.mean, point.std, scale=scale).removesuffix(f" {scale.unit}")
        failed = f" ({point.failed} without)" if point.failed else ""
        step = _step(each, before, point)
        subject = textwrap.shorten(point.subject, SUBJECT, placeholder=" …")
        lines.append([point.name, point.when[:16].replace("T", " "), value, f"{point.n}{failed}", step, marks.get(id(point), ""), subject])
        before = point if point.mean is not None else before
    unit = f" [{scale.unit}]" if scale.unit else ""
    arrow = "↑" if each.metric.direction == "higher" else "↓"
    heads = ["commit", "date (UTC)", f"{each.metric.title}{unit} {arrow}", "n", "against the last", "level changes", "commit message"]
    align = ["left", "left", "right", "right", "right", "left", "left"]
    body = tabulate(_cells(lines, style), heads, tablefmt=FORMATS[style], disable_numparse=True, colalign=align)
    title = printable(each.title)
    notes = []
    if any(point.commit is None for point in each.points):
        notes.append("Records without a commit stand by their day.")
    if any(point.dirty for point in each.points):
        notes.append("+: files of the checkout differed from the commit.")
    if any(point.commit and not point.subject for point in each.points):
        notes.append("Commits without a message are not in this checkout's history and stand by the date of their records.")
    head = f"### {_cells([[title]], style)[0][0]}\n" if style == "github" else title
    return "\n".join([head, body, *(["", *notes] if notes else [])])


def _singles(found: Sequence[Series], style: str) -> str:
    """Return one table of the series that have one point only: nothing to compare yet."""
    title = "Of one commit only"
    lines = []
    for each in found:
        point = each.points[0]
        about = each.title.removeprefix(f"{each.metric.title} of ")
        lines.append([about, point.name, point.when[:10], format_value(each.metric, point.mean, point.std), str(point.n)])
    heads = ["series", "commit", "date (UTC)", f"{found[0].metric.title} {'↑' if found[0].metric.direction == 'higher' else '↓'}", "n"]
    align = ["left", "left", "left", "right", "right"]
    body = tabulate(_cells(lines, style), heads, tablefmt=FORMATS[style], disable_numparse=True, colalign=align)
    return f"### {title}\n\n{body}" if style == "github" else f"{title}\n{body}"


def _cells(lines: Sequence[Sequence[str]], style: str) -> list[list[str]]:
    cells = [[printable(cell) for cell in line] for line in lines]
    return [[cell.replace("|", r"\|").replace("<", "&lt;") for cell in line] for line in cells] if style == "github" else cells


def _step(each: Series, before: Point | None, point: Point) -> str:
    """Return how a point differs from the one before it: points for shares, else per cent."""
    if before is None or before.mean is None or point.mean is None:
        return MISSING
    if point.mean == before.mean:
        return "="
    if each.metric.unit == "fraction":
        return f"{100 * (point.mean - before.mean):+.2f} points"
    return f"{100 * (point.mean - before.mean) / abs(before.mean):+.2f} %" if before.mean else f"{point.mean:+.4g}"


def _csv(found: Sequence[Series]) -> str:
    names = list(found[0].about) if found else []
    heads = [*names, "method", "settings", "metric", "commit", "dirty", "date", "mean", "std", "n", "failed"]
    lines: list[list[Any]] = [[*heads, "change", "level_before", "level_after", "message"]]
    for each in found:
        marks = {id(each.measured[change.index]): change for change in each.changes}
        for point in each.points:
            change = marks.get(id(point))
            word = ("better" if change.better else "worse") if change else None
            mark = [word, change.before if change else None, change.after if change else None]
            about = [*each.about.values(), each.label, each.setting, each.metric.name]
            figures = [point.commit, point.dirty, point.when, point.mean, point.std, point.n, point.failed]
            lines.append([*about, *figures, *mark, point.subject])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[printable(c) if isinstance(c, str) else c for c in line] for line in lines])
    return text.getvalue().rstrip("\n")


def draw(found: Sequence[Series]) -> Figure:
    """Return a drawing, one panel per task, budget, track and device; commits in their order, change points as vertical lines.

    Series of one commit are left out where others have several. Raises UsageError for more than ``PANELS``.
    """
    from matplotlib.figure import Figure

    found = [each for each in found if len(each.measured) > 1] or found

    panels: dict[tuple[str, ...], list[Series]] = {}
    for each in found:
        panels.setdefault((*map(str, each.about.values()), each.metric.name, each.metric.title), []).append(each)
    if len(panels) > PANELS:
        raise UsageError(f"{len(panels)} panels are too many to draw; name tasks with --task and methods with --method")
    figure = Figure(figsize=(11, 1 + 4.2 * len(panels)), layout="constrained")
    for number, members in enumerate(panels.values()):
        _panel(figure.add_subplot(len(panels), 1, number + 1), members)
    return figure


def _panel(axes: Any, members: Sequence[Series]) -> None:
    order: dict[tuple[str | None, bool, str], Point] = {}
    for point in sorted((point for each in members for point in each.measured), key=lambda point: point.place):
        order.setdefault((point.commit, point.dirty, "" if point.commit else point.when[:10]), point)
    places = {name: place for place, name in enumerate(order)}
    scale = scale_for(members[0].metric, [point.mean for each in members for point in each.measured])
    marked = 0
    for number, each in enumerate(members):
        colour, line, marker = COLOURS[number % 7], LINES[number // 7 % 4], MARKERS[number % len(MARKERS)]
        x = [places[point.commit, point.dirty, "" if point.commit else point.when[:10]] for point in each.measured]
        y = [(point.mean or 0.0) / scale.size for point in each.measured]
        counts = sorted({point.n for point in each.measured})
        seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        label = _plain(f"{each.label}{f' ({each.setting})' if each.setting else ''} (n = {seeds})")
        error = [(point.std or 0.0) / scale.size for point in each.measured]
        axes.errorbar(x, y, error, color=colour, linestyle=line, marker=marker, markersize=5, capsize=2, linewidth=1.3, label=label)
        for change in each.changes:
            axes.axvline(x[change.index] - 0.5, color=colour, linestyle=":", linewidth=1.2)
            place, right = (x[change.index] - 0.5, 0.98 - 0.05 * (marked % 8)), x[change.index] > len(order) / 2
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            text = f" {words(change, each, scale)} "
            where = {"xycoords": axes.get_xaxis_transform(), "va": "top", "ha": "right" if right else "left"}
            axes.annotate(text, place, fontsize=8, color=colour, bbox=box, zorder=5, **where)
            marked += 1
    every = -(-len(order) // TICKS)
    axes.set_xticks(
        range(0, len(order), every), [point.name for point in list(order.values())[::every]], rotation=60, ha="right", fontsize=7
    )
    axes.margins(x=0.06, y=0.15)
    axes.grid(alpha=0.3)
    unit = f" [{scale.unit}]" if scale.unit else ""
    axes.set_ylabel(f"{members[0].metric.title}{unit}")
    a = members[0].about
    device = f"{a['device']} ({a['kind']}, {a['precision']}, threads {a['threads']})"
    axes.set_title(_plain(f"{a['task']}, {a['budget']} budget, {a['track']} track, on {device}"), fontsize=9, loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)


def _plain(text: str) -> str:
    """Return text as it is: between dollar signs matplotlib would read mathematics, and records are not to be trusted."""
    return printable(text).replace("$", r"\$")
