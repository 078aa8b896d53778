"""Real runs on real data: the files of ``SPIKEBENCH_DATA``, and images and tasks that a user brings."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.registry import Registries
from suites import digits

LEAST = {"static/mnist": 0.85, "static/fashion-mnist": 0.7, "static/cifar10-jpeg": 0.3}  # chance is 0.1 in all
TEXT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def accuracies(command, results, *arguments):
    outcome = command("run", *arguments, "--results", results)
    assert outcome.status == 0, outcome.err
    records = [json.loads(path.read_text()) for path in results.glob("*.json")]
    assert {record["status"] for record in records} == {"ok"}
    return {record["spec"]["method"]: record["accuracy"]["test"] for record in records}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LEAST)
def test_spiking_and_plain_networks_learn_it_at_the_smoke_budget(name, command, tmp_path):
    if reason := Registries().task(name).unavailable():
        pytest.skip(reason)
    found = accuracies(command, tmp_path / "results", "-t", name, "-m", "stbp,ann")
    assert set(found) == {"stbp", "ann"}
    assert min(found.values()) > LEAST[name]


def write_images(folder):
    """Zeros and ones of the embedded digits, a folder for each; 60 of each class."""
    pixels, labels = digits.images("train")
    for label in (0, 1):
        (folder / str(label)).mkdir(parents=True)
        for n, image in enumerate(pixels[labels == label][:60]):
            Image.fromarray((image.numpy() * 255).astype(np.uint8)).resize((16, 16)).save(folder / str(label) / f"{n}.png")


@pytest.mark.slow
def test_a_folder_of_images_is_learned(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    write_images(tmp_path / "digits")
    found = accuracies(
        command, tmp_path / "results", "-t", "static/folder[path=digits,size=16,channels=1]", "-m", "stbp", "--set", "epochs=8"
    )
    assert found["stbp"] > 0.8


@pytest.mark.slow
def test_images_of_an_npz_file_are_learned_as_spikes(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    pixels, labels = digits.images("train")
    chosen = labels < 2
    np.savez(tmp_path / "digits.npz", x=pixels[chosen].numpy(), y=labels[chosen].numpy())
    name = "static/npz[path=digits.npz,images=x,labels=y,encoding=latency]"
    found = accuracies(command, tmp_path / "results", "-t", name, "-m", "stbp", "--set", "epochs=8")
    assert found["stbp"] > 0.8


@pytest.mark.slow
def test_the_documents_example_of_a_task_runs(command, tmp_path, monkeypatch):
    (code,) = re.findall(r"(?m)^    from pathlib import Path\n(?:(?:    .*)?\n)+", TEXT)
    plugin = tmp_path / "cells.py"
    plugin.write_text("\n".join(line[4:] for line in code.splitlines()))
    random = np.random.default_rng(0)
    for split, count in (("train", 200), ("validation", 40), ("test", 80)):
        labels = np.arange(count) % 8
        images = random.integers(0, 64, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[3 * label : 3 * label + 4] += 128
        np.savez(tmp_path / f"cells_{split}.npz", images=images, labels=labels)
    monkeypatch.chdir(tmp_path)
    found = accuracies(command, tmp_path / "results", "-t", "static/cells", "-m", "stbp", "--plugin", plugin)
    assert found["stbp"] > 0.5
