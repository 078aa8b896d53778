import torch

from harness.task import SPLITS
from suites import boxes, digits
from suites.detection import DigitScenes


def test_scenes_of_a_split_are_made_of_its_own_digits(monkeypatch):
    asked = []
    images = digits.images
    monkeypatch.setattr(digits, "images", lambda split: asked.append(split) or images(split))
    monkeypatch.setattr(DigitScenes, "scenes", dict.fromkeys(SPLITS, 3))
    task = DigitScenes()
    for split in SPLITS:
        assert len(task.load(split)) == 3
    assert asked == list(SPLITS)


def test_all_boxes_are_good_and_inputs_normalised():
    task = DigitScenes()
    data = task.split("train")
    boxes.checked(data.targets, 10, 32, 32)
    assert abs(data.inputs.mean().item()) < 5e-3
    assert abs(data.inputs.var().item() - 1) < 5e-3


def test_a_detector_of_the_reference_network_fits_the_grid():
    from methods.ann import Ann

    task = DigitScenes()
    method = Ann(task)
    batch = task.gather("validation", torch.arange(2))
    outputs = method.build()(method.encode(batch.inputs))
    assert outputs.shape == (1, 2, len(task.grid.points), 15)
    assert task.loss(task.final(outputs), batch.targets).isfinite()


def test_the_checksum_changes_with_the_scenery(monkeypatch):
    before = DigitScenes().checksum()
    assert before == DigitScenes().checksum()
    monkeypatch.setattr(DigitScenes, "scenes", {"train": 10, "validation": 1, "test": 1})
    assert DigitScenes().checksum() != before
