"""Blood cells: red cells, white cells and platelets under the microscope."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from harness import plugin
from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites.image_detection import ImageDetection
from suites.letterbox import Letterbox
from suites.sources import FileTask, Source, cached_arrays
from suites.voc_files import dataset, listed

ROOT = "detection/BCCD"
DEVKIT = f"{ROOT}/VOCdevkit/VOC2007"
SETS = {"train": "train", "validation": "val", "test": "test"}


class Bccd(FileTask, ImageDetection):
    """Images of 640x480 pixels, shrunk: ``[B, 3, H, W]``, 4 to 30 cells each; platelets are 10 pixels wide at the default size."""

    card = TaskCard(
        name="detection/bccd",
        title="Blood cells (BCCD)",
        data="364 stained blood smears of 640x480 pixels with 4,888 boxes of 3 classes: red cells, white cells, platelets",
        licence="MIT",
        split="the repository's: train (205 images), val (87) and test (72)",
        source="github.com/Shenggan/BCCD_Dataset at d272fb14cd",
    )
    source = Source(
        (
            {
                f"{DEVKIT}/ImageSets/Main/train.txt": "",
                f"{DEVKIT}/ImageSets/Main/val.txt": "",
                f"{DEVKIT}/ImageSets/Main/test.txt": "",
                f"{DEVKIT}/Annotations": "",
                f"{DEVKIT}/JPEGImages": "",
            },
        ),
        advice=f"they are the folder BCCD of github.com/Shenggan/BCCD_Dataset, which becomes {DEVKIT}",
    )
    classes = ("RBC", "WBC", "Platelets")
    head = Head("detect", classes=3, strides=(4, 8, 16))
    steps = 4
    mean, deviation = (0.7374, 0.6963, 0.7149), (0.0595, 0.1008, 0.0744)  # of the training images
    flips = ("horizontal", "vertical")
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=4, lr=8e-3, augment=True),
            Backbone("vgg", (8, 16, 32, 32)),
            train_samples=96,
            validation_samples=16,
            test_samples=32,
            time_limit=300,
            target=0.2,
        ),
        "laptop": Budget(
            Training(epochs=12, batch_size=8, lr=8e-3, augment=True),
            Backbone("vgg", (16, 32, 64, 64)),
            time_limit=1800,
            target=0.5,
        ),
        "paper": Budget(
            Training(epochs=120, batch_size=16, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128, 256, 512)),
            time_limit=2 * 86400,
            target=0.85,
        ),
    }

    class Options(plugin.Options):
        """The size of the images."""

        width: int = Field(160, description="width in pixels; the height is three quarters of it", multiple_of=32, ge=64, le=640)

    options: Options

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return 3, self.options.width * 3 // 4, self.options.width

    def load(self, split: Split) -> Data:
        """Return images and boxes; decoded and shrunk once, then kept in the cache."""
        found = self.source.require()
        letterbox = Letterbox(*self.input_shape[1:])
        files = dataset(listed(found.path(ROOT), "2007", SETS[split]), self.classes, letterbox, self.warnings)

        def decode() -> dict[str, np.ndarray]:
            return {"images": np.stack([files[place][0].numpy() for place in range(len(files))])}

        images = cached_arrays("bccd", f"{self.version} {self.checksum()} {letterbox} {split}", decode)["images"]
        assert files.boxes is not None
        return Data(torch.from_numpy(images), files.boxes)
