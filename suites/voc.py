"""Pascal VOC annotations: one XML file per image, read into boxes and checked.

VOC counts pixels from 1 and includes both corners, so that ``xmin..xmax`` covers ``[xmin - 1, xmax]`` (``suites.boxes``)::

    found = read(Path("Annotations/000005.xml"), ("chair", "dog"), height=375, width=500)
    found.targets     # [M, 5]: class, x1, y1, x2, y2 in pixels of the image
    found.empty       # how many boxes without area were left out

An object that VOC calls difficult is neither asked for nor counted as a false alarm when found: its class k is written ``-2 - k``.
Format: M. Everingham et al., "The Pascal Visual Object Classes (VOC) challenge", IJCV 88, 2010, and its development kit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from harness.plugin import DataError, did_you_mean

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class Annotation:
    """What one file says: ``targets [M, 5]`` and how many boxes were ``empty`` and left out."""

    targets: Tensor
    empty: int


def parse(path: Path) -> Mapping[str, Any]:
    """Return a file as torchvision parses it, its objects as a list; raise DataError if it cannot be read or is no annotation."""
    from torchvision.datasets import VOCDetection

    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise DataError(f"cannot read {path.name}: {error.strerror}; every image needs its annotation") from None
    except ElementTree.ParseError as error:
        raise DataError(f"{path.name} is not XML ({error}); get it again") from None
    found = VOCDetection.parse_voc_xml(root).get("annotation")
    if not isinstance(found, dict):
        raise DataError(f"{path.name} is no VOC annotation: its root is <{root.tag}>, not <annotation> with content")
    return found


def read(path: Path, classes: Sequence[str], height: int, width: int) -> Annotation:
    """Return the objects of an image of ``height`` x ``width`` pixels.

    A box without area is left out and counted. Raises DataError, which names the file and the object, for an unknown class, a corner
    that is missing or no number, a box that is reversed or leaves the image, and where the file says another size of the image.
    """
    annotation = parse(path)
    _check_size(annotation.get("size"), path, height, width)
    rows, empty = [], 0
    for number, thing in enumerate(annotation.get("object", [])):
        where = f"{path.name}, object {number}"
        name, box = thing.get("name"), thing.get("bndbox")
        if name not in classes:
            raise DataError(f"{where}: class {name!r} is unknown{did_you_mean(str(name), classes)}")
        x1, y1, x2, y2 = (_number(box, corner, where) for corner in ("xmin", "ymin", "xmax", "ymax"))
        if x1 > x2 or y1 > y2:
            raise DataError(f"{where}: box {x1:g}, {y1:g}, {x2:g}, {y2:g} is reversed; xmin < xmax and ymin < ymax are needed")
        if min(x1, y1) < 0 or x2 > width or y2 > height:
            raise DataError(f"{where}: box {x1:g}, {y1:g}, {x2:g}, {y2:g} leaves its image, which is {width} wide and {height} high")
        if x1 == x2 or y1 == y2:
            empty += 1
            continue
        kind = classes.index(name)
        kind = -2 - kind if str(thing.get("difficult", "0")).strip() == "1" else kind
        rows.append((float(kind), max(x1 - 1, 0), max(y1 - 1, 0), x2, y2))  # 0: some programs count from there
    return Annotation(torch.tensor(rows, dtype=torch.float32).view(-1, 5), empty)


def classes_of(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the names of all classes in annotation files, sorted."""
    return tuple(sorted({str(thing.get("name")) for path in paths for thing in parse(path).get("object", [])}))


def _check_size(size: Any, path: Path, height: int, width: int) -> None:
    if not isinstance(size, Mapping):
        return
    said = tuple(str(size.get(side, "0")).strip() for side in ("width", "height"))
    if said not in ((str(width), str(height)), ("0", "0")):
        raise DataError(f"{path.name} is of an image {said[0]} wide and {said[1]} high, which is {width} wide and {height} high")


def _number(box: Any, corner: str, where: str) -> float:
    given = box.get(corner) if isinstance(box, Mapping) else None
    try:
        value = float(given)  # type: ignore[arg-type]  # None is an error below
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {corner} is {given!r}, not a number")
    return value
