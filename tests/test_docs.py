"""What is generated into docs is what the program says."""

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_metrics_page_has_the_metrics_of_the_registry(command):
    listed = command("list", "metrics", "--format", "github").out.strip()
    assert (DOCS / "metrics.md").read_text(encoding="utf-8").strip().endswith(listed)


def test_the_tasks_page_has_the_tasks_of_the_registry(command):
    listed = command("list", "tasks", "--format", "github").out.strip()
    assert (DOCS / "tasks.md").read_text(encoding="utf-8").strip().endswith(listed)
