"""A table of texts in every format: the same cells in each, whatever they hold."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from harness.report.formats import block, latex, markdown, plain

NASTY = [
    r"a_b%$#&{}~^\ ",
    "x | y || z\\",
    "`code` ``",
    "<script>alert(1)</script> &amp; &#65;",
    "*bold* _under_ __x__ ~~gone~~ a_b_c",
    "[link](http://a) ![img](b) [ref][x]",
    "$x^2$ \\(y\\)",
    "two\nlines\r\nand\x0bmore\u2028end",
    "\x1b[31mred\x00 \u202eturned",
    "[1cm] x",
    "* star",
    "--- -- '' ``q''",
    "ünï → ↑ ± µ ∞ ✓ 中文 😀 ąß",
    "+ - # > 1. x",
    "1. x",
    "[x]: http://a",
    "[ ] box",
]
ROWS = [[text, "1", "93.00 ± 3.61"] for text in NASTY]
HEADS = ["method", "n", "accuracy [%] ↑"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


class Cells(HTMLParser):
    """The texts of the cells of the tables in HTML, row by row, of the items of lists, and the tags."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.items, self.tags, self._open = [], [], set(), None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th", "li"):
            self._open = ""

    def handle_data(self, data):
        if self._open is not None:
            self._open += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(self._open.strip())
        if tag == "li":
            self.items.append(self._open.strip())
        if tag in ("td", "th", "li"):
            self._open = None


def rendered(text):
    return Cells(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def shown(rows):
    return [[plain(cell).strip() for cell in row] for row in rows]


def test_markdown_shows_every_cell_and_note_as_it_is():
    found = rendered(block("a *title*", HEADS, ROWS, NASTY, "github"))
    assert found.rows == [HEADS, *shown(ROWS)]
    assert found.items == [plain(text).strip() for text in NASTY]
    assert found.tags <= {"h3", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_markdown_and_html_give_back_any_text(pairs):
    rows = [[f"x{a}", f"{b}y"] for a, b in pairs]
    assert rendered(block("t", ["a", "b"], rows, [], "github")).rows[1:] == shown(rows)
    assert Cells(block("t", ["a", "b"], rows, [], "html")).rows[1:] == shown(rows)


def test_html_shows_every_cell_and_note_as_it_is():
    found = Cells(block("<b>", HEADS, ROWS, NASTY, "html"))
    assert found.rows == [HEADS, *shown(ROWS)] and found.items == [plain(text) for text in NASTY]
    assert found.tags <= {"h3", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}


def test_markdown_leaves_ordinary_labels_alone():
    for text in (
        "ottt[update=online]@T=8",
        "sctfa[attention=none]: +1.00 points (p = 0.529)",
        "ann2snn[v_init=0.5]",
        "mAP@[.5:.95] [%] ↑",
        "~x^-0.57",
        "5.917 ± 0.000 (0.25x)",
    ):
        assert markdown(text) == text


@pytest.mark.parametrize("style", ["terminal", "github", "latex", "html"])
def test_no_control_character_gets_through(style):
    text = block("a\x1b[2Jb", HEADS, ROWS, NASTY, style)
    assert not set(text) & {chr(i) for i in (*range(10), *range(11, 32), 127, 0x85, 0x2028, 0x202E)}


def test_every_line_of_latex_that_is_not_of_the_table_is_a_comment():
    lines = block("title\nnext", HEADS, ROWS, ["note\n\\input{x}", "\r\\bad"], "latex").splitlines()
    assert [line for line in lines if line.startswith("%")] == ["% title next", "% note \\input{x}", "% \\bad"]
    assert len(lines) == len(ROWS) + 6 + 3


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
def test_latex_compiles_whatever_the_labels_are(tmp_path):
    table = block("title %", HEADS, ROWS, NASTY, "latex")
    symbols = "".join(latex(chr(i)) + " " for i in (*range(33, 127), *range(0xA1, 0x180), 0x2191, 0x2192, 0x221E))
    text = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + table + "\n\n" + symbols + "\n\\end{document}\n"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "t.log").read_text(errors="replace")


def test_a_terminal_that_is_wide_enough_shows_all_columns_side_by_side():
    lines = block("title", HEADS, [["stbp", "3", "93.00 ± 3.61"]], ["note"], "terminal").splitlines()
    assert [line.split() for line in lines] == [
        ["title"],
        ["accuracy"],
        ["method", "n", "[%]", "↑"],
        ["─" * len(lines[3])],
        ["stbp", "3", "93.00", "±", "3.61"],
        ["note"],
    ]


def test_a_narrow_terminal_shows_the_columns_in_parts_and_cuts_nothing():
    heads = ["method", *(f"some metric {i} [ms] ↓" for i in range(9))]
    rows = [["ottt[update=online]", *(f"{i}.00 ± 0.{i}" for i in range(9))], ["stbp", *(f"1{i}.0 ± 0.{i}" for i in range(9))]]
    text = re.sub(r"\x1b\[\d*m", "", block("title", heads, rows, [], "terminal", width=60))
    assert max(cell_len(line) for line in text.splitlines()) <= 60
    assert all(cell in text for row in rows for cell in row) and "…" not in text
    assert text.count("ottt[update=online]") == text.count("method") > 1


def test_emphasis_is_for_terminals_only():
    assert "\x1b[1m" in block("title", HEADS, ROWS[:1], [], "terminal", width=80)
    assert "\x1b" not in block("title", HEADS, ROWS[:1], [], "terminal")
