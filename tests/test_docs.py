"""What pages show of the output of commands is what these print."""

from pathlib import Path

import pytest

from harness.report.embed import blocks, refreshed

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [(page, arguments, shown) for page in PAGES for arguments, shown in blocks(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "arguments", "shown"), SHOWN, ids=[f"{page.name}: {' '.join(given)}" for page, given, _ in SHOWN])
def test_a_page_shows_what_the_command_prints(command, monkeypatch, page, arguments, shown):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("SPIKEBENCH_DATA", raising=False)
    assert command(*arguments).out.strip() == shown


def test_each_page_of_listings_has_one():
    listed = {page.name for page, arguments, _ in SHOWN if arguments[0] == "list"}
    assert listed == {"README.md", "metrics.md", "tasks.md"}


PAGE = "Before.\n<!-- spikebench table --format github -->\nold\n<!-- end -->\nAfter.\n"


def test_what_stands_between_the_marks_is_replaced_and_nothing_else():
    new = refreshed(PAGE, lambda arguments: f"ran {' '.join(arguments)}")
    assert new == "Before.\n<!-- spikebench table --format github -->\n\nran table --format github\n\n<!-- end -->\nAfter.\n"
    assert refreshed(new, lambda arguments: "ran table --format github") == new


def test_a_page_cannot_run_anything():
    with pytest.raises(ValueError, match="may show the output of table, list, claims only"):
        list(blocks(PAGE.replace("table", "run")))
