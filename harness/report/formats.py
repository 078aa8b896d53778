"""One table of texts in every format that is read by people: on a terminal, in Markdown, LaTeX and HTML.

    block("accuracy", ["method", "n"], [["stbp", "3"]], ["a note"], "github")

Cells are texts of records, which may hold anything, so every character that a format would read as its own is escaped, and control
characters are spelt out. The formats differ in nothing else: the same cells stand in each.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from html import escape
from io import StringIO

from tabulate import tabulate

# What tables are written as, and what tabulate calls it.
FORMATS = {"terminal": "simple", "github": "github", "latex": "latex_booktabs", "csv": "csv", "html": "html"}
MATHS = {  # of what pdflatex with utf8 input does not know without further packages
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "∞": r"$\infty$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "²": r"$^2$",
    "³": r"$^3$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "∝": r"$\propto$",
    "√": r"$\surd$",
    "✓": r"$\surd$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
}
TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\char34{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
ACCENTS = ("0300", "0301", "0302", "0303", "0304", "0307", "0308", "030A", "030B", "030C", "0327")  # that all fonts have


def block(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    style: str,
    *,
    left: Sequence[int] = (0,),
    width: int | None = None,
) -> str:
    """Return a table with its title and notes in one of ``FORMATS`` but csv.

    ``left`` are the columns that are not aligned to the right. ``width`` is that of a terminal, where wide tables come in parts, with
    emphasis; None is for files and pipes: as wide as it takes, plain text.
    """
    title, heads, rows, notes = plain(title), list(map(plain, heads)), [list(map(plain, row)) for row in rows], list(map(plain, notes))
    return _WRITERS[style](title, heads, rows, notes, ["left" if i in left else "right" for i in range(len(heads))], width)


def plain(text: str) -> str:
    """Return a text on one line, with every character that does not print, or turns the direction of writing, spelt out."""
    text = " ".join(text.split())
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def markdown(text: str) -> str:
    """Return a text of one line as GitHub's Markdown shows it: nothing in it is markup, and it fits into a cell."""
    text = re.sub(r"([\\|`$<]|\*(?=\S)|(?<=\S)\*)", r"\\\1", text)
    text = re.sub(r"&(?=#?\w+;)", r"\\&", text)
    text = re.sub(r"\](?=[(\[])", r"\\]", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return text.replace("~", r"\~") if text.count("~") > 1 else text


def latex(text: str) -> str:
    """Return a text of one line as pdflatex sets it without further packages; what it has no sign for stands as its code point."""
    parts = re.split(r"(?<=-)(?=-)|(?<=')(?=')", text)  # -- would become a dash, '' a quotation mark
    return "{}".join("".join(map(_tex, part)) for part in parts)


def _tex(char: str) -> str:
    if char.isascii():
        return TEX.get(char, char)
    if char in MATHS:
        return MATHS[char]
    return char if unicodedata.decomposition(char)[-4:] in ACCENTS and char <= "\u017e" else f"[U+{ord(char):04X}]"


def _github(title: str, heads: list[str], rows: list[list[str]], notes: list[str], align: list[str], width: int | None) -> str:
    body = tabulate(
        [list(map(markdown, row)) for row in rows],
        list(map(markdown, heads)),
        tablefmt="github",
        disable_numparse=True,
        colalign=align if rows else None,
    )
    # At the beginning of an item, - or 1. would begin a list in it, [ a box or a reference.
    listed = "".join("\n- " + re.sub(r"^(\d*)([-+*#>=.)[])", r"\1\\\2", markdown(note)) for note in notes)
    return f"### {markdown(title)}\n\n{body}" + (f"\n{listed}" if notes else "")


def _html(title: str, heads: list[str], rows: list[list[str]], notes: list[str], align: list[str], width: int | None) -> str:
    body = tabulate(rows, heads, tablefmt="html", disable_numparse=True, colalign=align if rows else None)
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h3>{escape(title)}</h3>\n{body}" + (f"\n<ul>{listed}</ul>" if notes else "")


def _latex(title: str, heads: list[str], rows: list[list[str]], notes: list[str], align: list[str], width: int | None) -> str:
    def line(cells: Sequence[str]) -> str:
        cells = list(map(latex, cells))
        if cells[0][:1] in ("[", "*"):  # after \\ these would be read as its options
            cells[0] = "{}" + cells[0]
        return " & ".join(cells) + r" \\"

    begin = r"\begin{tabular}{" + "".join(each[0] for each in align) + "}"
    lines = [f"% {title}", begin, r"\toprule", line(heads), r"\midrule", *map(line, rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {note}" for note in notes)])


def _terminal(title: str, heads: list[str], rows: list[list[str]], notes: list[str], align: list[str], width: int | None) -> str:
    from rich.cells import cell_len

    widest = [max((cell_len(row[i]) for row in rows), default=0) for i in range(len(heads))]
    heads = [_folded(head, size) for head, size in zip(heads, widest, strict=True)]
    sizes = [max(size, *map(cell_len, head.split("\n"))) for size, head in zip(widest, heads, strict=True)]
    shown = [_drawn(heads, rows, align, part, width is not None) for part in _parts(sizes, width)]
    named = f"\x1b[1m{title}\x1b[0m" if width is not None else title
    return "\n".join([named, "\n\n".join(shown), *(f"  {note}" for note in notes)])


def _folded(head: str, size: int) -> str:
    """Return a heading on several lines, so that it makes its column no wider than cells and words do; the unit stands below the name."""
    found = re.fullmatch(r"(.*?)((?: \[\S+\])?(?: [↑↓])?)", head)
    assert found is not None
    words = found[1].split() or [""]
    return "\n".join(
        [*textwrap.wrap(found[1], max(size, *map(len, words)), break_on_hyphens=False), *([found[2].strip()] if found[2] else [])]
    )


def _parts(sizes: Sequence[int], width: int | None) -> list[list[int]]:
    """Return which columns stand side by side: all, or as many as fit into ``width`` besides the first, which every part has."""
    if width is None:
        return [list(range(len(sizes)))]
    parts, used = [[0]], sizes[0]
    for column, size in enumerate(sizes[1:], 1):
        if used + 2 + size > width and len(parts[-1]) > 1:
            parts.append([0])
            used = sizes[0]
        parts[-1].append(column)
        used += 2 + size
    return parts


def _drawn(heads: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str], columns: Sequence[int], emphasis: bool) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold" if emphasis else "", show_edge=False)
    for column in columns:
        table.add_column(Text(heads[column]), justify=align[column], no_wrap=True)  # type: ignore[arg-type]
    table.add_row(*(Text("\n".join(row[column] for row in rows)) for column in columns))  # one row of many lines: five times as quick
    text = StringIO()
    Console(file=text, width=100_000, force_terminal=emphasis, color_system="standard" if emphasis else None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip("\n").split("\n"))


_WRITERS: dict[str, Callable[..., str]] = {"github": _github, "html": _html, "latex": _latex, "terminal": _terminal}
