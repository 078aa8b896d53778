"""The detection suite on the files of ``SPIKEBENCH_DATA``: what they hold, and that methods learn from them."""

import os

import numpy as np
import pytest
import torch
from torchvision.datasets import VOCDetection

from harness.record import Record
from harness.registry import Registries
from harness.task import SPLITS
from suites import bccd, boxes, nuclei

REGISTRIES = Registries()
LEARNT = {  # task: what a network that knows nothing scores, and what must be exceeded clearly
    "detection/bccd": (0.0, 0.15),
    "detection/voc-folder[path=detection/BCCD/VOCdevkit/VOC2007]": (0.0, 0.05),
    "detection/nuclei": (0.0, 0.05),
    "detection/nuclei-segmentation": (0.462, 0.6),  # background everywhere: the share of background, and 0, averaged
}


def ready(name):
    """The task, or a skip that says why there is none."""
    if not os.environ.get("SPIKEBENCH_DATA"):
        pytest.skip("SPIKEBENCH_DATA is not set")
    task = REGISTRIES.task(name)
    if reason := task.unavailable():
        pytest.skip(reason)
    return task


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stbp", "ann"])
@pytest.mark.parametrize("name", LEARNT)
def test_a_short_run_learns(name, method, command, tmp_path):
    ready(name)
    outcome = command("run", "-t", name, "-m", method, "--threads", "1", "--results", tmp_path)
    assert outcome.status == 0, outcome
    (path,) = tmp_path.glob("*.json")
    record = Record.model_validate_json(path.read_text(encoding="utf-8"))
    assert record.status == "ok", record.failure
    assert record.accuracy.test > LEARNT[name][1]


@pytest.mark.parametrize("name", ["detection/bccd", "detection/nuclei", "detection/nuclei-segmentation"])
def test_splits_share_no_image(name):
    task = ready(name)
    parts = [{image.numpy().tobytes() for image in task.load(split).inputs} for split in SPLITS]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_nothing_but_background_scores_what_is_said():
    task = ready("detection/nuclei-segmentation")
    scorer = task.scorer()
    for batch in task.batches("test"):
        scorer.update(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(len(batch.targets), 2, *batch.targets.shape[1:]), batch.targets)
    assert scorer.compute()["miou"] == pytest.approx(LEARNT["detection/nuclei-segmentation"][0], abs=0.01)


def test_bccd_holds_what_its_card_says():
    task = ready("detection/bccd")
    parts = {split: task.load(split) for split in SPLITS}
    assert {split: len(data) for split, data in parts.items()} == {"train": 205, "validation": 87, "test": 72}
    counts = [int((data.targets[..., 0] == kind).sum()) for kind in range(3) for data in parts.values()]
    assert counts == [2381, 967, 805, 214, 87, 71, 209, 83, 69]  # two red cells have no area
    assert [warning.split(",")[0] for warning in task.warnings] == ["1 box without area left out"] * 2
    for data in parts.values():
        boxes.checked(data.targets, 3, 120, 160)


def test_bccd_has_the_boxes_of_torchvisions_loader():
    task = ready("detection/bccd")
    found = VOCDetection(task.source.require().path(bccd.ROOT), year="2007", image_set="test")
    for (_, target), ours in zip(found, task.load("test").targets, strict=True):
        things = target["annotation"]["object"]
        corners = [[int(thing["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for thing in things]
        real = ours[ours[:, 0] >= 0]
        torch.testing.assert_close(real[:, 1:] * 4 + torch.tensor([1, 1, 0, 0]), torch.tensor(corners).float())
        assert [task.classes[int(kind)] for kind in real[:, 0]] == [thing["name"] for thing in things]


def test_bccd_images_are_those_of_torchvisions_loader_shrunk():
    task = ready("detection/bccd")
    image, _ = VOCDetection(task.source.require().path(bccd.ROOT), year="2007", image_set="test")[0]
    small = torch.from_numpy(np.asarray(image.resize((160, 120), resample=2)).copy()).permute(2, 0, 1)
    assert (task.load("test").inputs[0].int() - small.int()).abs().max() <= 1  # Pillow and torch round differently


def test_nuclei_are_as_many_as_the_card_says():
    ready("detection/nuclei")
    task = REGISTRIES.task("detection/nuclei[tile=256]")
    parts = {split: task.load(split) for split in SPLITS}
    assert {split: len(data) for split, data in parts.items()} == {"train": 215, "validation": 53, "test": 66}
    assert sum(int((data.targets[..., 0] == 0).sum()) for data in parts.values()) == 9543


def test_few_nuclei_are_lost_where_images_are_cut():
    task = ready("detection/nuclei")
    parts = {split: task.load(split) for split in SPLITS}
    assert {split: len(data) for split, data in parts.items()} == {"train": 860, "validation": 212, "test": 264}
    assert abs(sum(int((data.targets[..., 0] == 0).sum()) for data in parts.values()) - 9543) < 20


def test_every_nucleus_is_one_box_of_its_pixels():
    task = REGISTRIES.task("detection/nuclei[tile=256]")
    ready("detection/nuclei")
    labels = task.arrays("test")[1]
    for label, rows in zip(labels[:10], task.load("test").targets, strict=False):
        found = rows[rows[:, 0] >= 0]
        assert len(found) == len(np.unique(label)) - 1
        for k, (_, x1, y1, x2, y2) in zip(np.unique(label)[1:], found.tolist(), strict=True):
            y, x = np.nonzero(label == k)
            assert [x.min(), y.min(), x.max() + 1, y.max() + 1] == [x1, y1, x2, y2]


def test_a_pixel_is_a_nucleus_where_an_instance_is():
    task = REGISTRIES.task("detection/nuclei-segmentation[tile=256]")
    ready("detection/nuclei-segmentation")
    with np.load(task.source.require().path(nuclei.TEST)) as stored:
        assert np.array_equal(task.load("test").targets.numpy(), stored["label"] > 0)
