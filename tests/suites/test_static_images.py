import pytest
import torch
from torchvision.transforms import v2

from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Backbone, Batch, Budget, Data, Head, TaskCard, Training
from suites import encoding
from suites.static_images import StaticTask

GENERATOR = torch.Generator().manual_seed(0)
PIXELS = torch.randint(0, 256, (6, 3, 8, 8), generator=GENERATOR, dtype=torch.uint8)


class Noise(StaticTask):
    card = TaskCard("static/noise", "Noise", "-", "-", "-", "-")
    input_shape, head = (3, 8, 8), Head("classify", classes=2)
    budgets = {"smoke": Budget(Training(epochs=1), Backbone("conv", (4,)))}
    mean, deviation = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    shift, flip = 2, True

    def load(self, split):
        return Data(PIXELS, torch.arange(6) % 2)


def test_direct_coding_normalises_as_torchvision_does():
    wanted = v2.Normalize(Noise.mean, Noise.deviation)(v2.ToDtype(torch.float32, scale=True)(PIXELS))
    task = Noise()
    torch.testing.assert_close(task.prepare(PIXELS), wanted)
    sequence = task.encode(task.prepare(PIXELS), 3)
    assert sequence.shape == (3, 6, 3, 8, 8)
    torch.testing.assert_close(sequence[2], wanted)


def test_floats_are_taken_as_they_are():
    torch.testing.assert_close(Noise().prepare(PIXELS.float() / 255), Noise().prepare(PIXELS))


@pytest.mark.parametrize("name", ["rate", "latency", "phase"])
def test_other_encodings_see_intensities(name):
    task = Noise(options={"encoding": name})
    assert task.name == f"static/noise[encoding={name}]"
    images = task.prepare(PIXELS)
    assert (images.min(), images.max()) == (PIXELS.min() / 255, PIXELS.max() / 255)
    torch.manual_seed(0)
    found = task.encode(images, 5)
    torch.manual_seed(0)
    assert torch.equal(found, getattr(encoding, name)(PIXELS.float() / 255, 5))


@pytest.mark.parametrize("name", ["direct", "rate", "latency", "phase"])
def test_a_network_without_time_sees_the_numbers_themselves(name):
    task = Noise(options={"encoding": name})
    images = task.prepare(PIXELS)
    assert torch.equal(task.encode(images, 1), images[None])


def test_an_unknown_encoding_is_an_error_that_names_the_known_ones():
    with pytest.raises(UsageError, match="'direct', 'rate', 'latency' or 'phase'"):
        Noise(options={"encoding": "ratio"})


@pytest.mark.parametrize("name", ["direct", "rate"])
def test_what_augmentation_brings_in_is_black(name):
    task = Noise(options={"encoding": name})
    black = task.prepare(torch.zeros(20, 3, 8, 8, dtype=torch.uint8))
    batch = Batch(black, torch.zeros(20), torch.arange(20))
    torch.testing.assert_close(task.augment(batch, torch.Generator().manual_seed(0)).inputs, black)


def test_augmentation_changes_images_and_keeps_targets():
    task = Noise()
    batch = task.gather("train", torch.arange(6))
    changed = task.augment(batch, torch.Generator().manual_seed(0))
    assert changed.targets is batch.targets
    assert not torch.equal(changed.inputs, batch.inputs)
    assert changed.inputs.shape == batch.inputs.shape


@pytest.mark.parametrize("name", [name for name in Registries().tasks.names() if name.startswith("static/")])
def test_every_static_task_has_the_option(name):
    assert Registries().task(f"{name}[encoding=latency]").options.encoding == "latency"
