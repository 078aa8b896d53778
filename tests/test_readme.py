"""What the README says about methods, tasks and commands is what the code says."""

import re
from pathlib import Path

from harness.cli import app
from harness.registry import Registries

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_command_is_shown():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert {name for name in commands if f"spikebench {name}" not in README} == set()


def test_files_it_names_exist():
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in path:
            assert (Path(__file__).parents[1] / path).exists(), path


def test_its_example_of_a_method_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "slow_leak.py"
    path.write_text(code, encoding="utf-8")
    registries = Registries([path])
    method = registries.methods.load("slow_leak")(registries.tasks.load("static/digits")())
    assert method.build().backbone.stages[0][0].neuron.leak == 0.9
