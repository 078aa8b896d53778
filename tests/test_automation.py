"""Workflows, ``.ci/run`` and pages name targets, commands and options that there are, and workflows keep to safe habits."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import asv.commands
import pytest
import typer
import yaml

from harness.cli import app

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CALLS = re.compile(r"(?:^|\s|\$\(BIN\)/|\.venv/bin/)(make|spikebench|asv)(?= )([^|>#\n]*)")
PAGES = [ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "docs" / "benchmarks.md"]


def jobs():
    return [(path.stem, name, job) for path in WORKFLOWS for name, job in yaml.safe_load(path.read_text())["jobs"].items()]


def steps():
    return [(f"{file}/{name}", step) for file, name, job in jobs() for step in job["steps"]]


def commands():
    """Return every call of make, spikebench and asv, with where it is."""
    texts = [(where, step["run"]) for where, step in steps() if "run" in step]
    for page in PAGES:
        lines = [line for line in page.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        texts.append((page.name, "\n".join(line for line in lines if page.suffix != ".md" or line.startswith("    "))))
    return [(where, *match.groups()) for where, text in texts for match in CALLS.finditer(text)]


def parse(program, arguments):
    """Raise if the program would not take the arguments."""
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {argument for argument in arguments if "=" not in argument} <= set(targets)
    elif program == "asv":
        asv.commands.make_argparser()[0].parse_args(arguments)
    else:
        name, *rest = arguments
        typer.main.get_command(app).commands[name].make_context(name, rest)


def test_there_are_workflows_for_tests_smoke_regressions_and_the_site():
    assert [path.stem for path in WORKFLOWS] == ["regress", "site", "smoke", "tests"]


@pytest.mark.parametrize(("where", "program", "rest"), commands())
def test_a_call_is_one_that_the_program_takes(where, program, rest):
    plain = rest.replace("$(BIN)/", "").replace("$(SMOKE)", "records").replace("$(EMBEDDED)", "static/digits")
    parse(program, shlex.split(plain))


@pytest.mark.parametrize("call", ["make tset", "spikebench tabel", "spikebench table --colour", "asv runn", "asv run --bnch x"])
def test_a_call_that_no_program_takes_is_found(call):
    program, _, rest = call.partition(" ")
    with pytest.raises(BaseException) as refused:
        parse(program, shlex.split(rest))
    known = isinstance(refused.value, (AssertionError, KeyError, SystemExit))
    assert known or hasattr(refused.value, "format_message")  # an error of the command line's parser


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_unless_a_job_says_otherwise(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("file", "name", "job"), jobs())
def test_a_job_ends_in_time(file, name, job):
    assert 0 < job["timeout-minutes"] <= 60


def test_actions_have_a_major_version():
    used = [step["uses"] for _, step in steps() if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


def test_nothing_that_a_stranger_writes_reaches_a_shell():
    assert not [where for where, step in steps() if "${{" in step.get("run", "")]


def test_no_workflow_uses_a_secret_or_runs_a_strangers_code_with_rights():
    for path in WORKFLOWS:
        text = path.read_text()
        assert "secrets." not in text and "pull_request_target" not in text


def test_checkouts_leave_no_credentials_behind():
    assert all(step["with"]["persist-credentials"] is False for _, step in steps() if step.get("uses", "").startswith("actions/checkout"))


def test_what_ci_runs_is_tests_smoke_matrix_tracks_and_site():
    made = [rest.strip() for where, program, rest in commands() if where == "run" and program == "make"]
    assert made == ["test", "smoke", "tracks", "site"]
