"""Small folders in VOC's layout, made for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 60, 40


def thing(name="dog", box=(11, 6, 30, 25), difficult=0):
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def annotation(*things, size=(WIDTH, HEIGHT)):
    said = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><filename>x.jpg</filename>{said}{''.join(things)}</annotation>"


def picture(path: Path, seed=0, size=(WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def devkit(root: Path, year: str, sets: dict[str, list[str]], section: str = "Main") -> Path:
    """Images ``sets`` names, each with one dog, below ``root/VOCdevkit/VOC{year}``."""
    base = root / "VOCdevkit" / f"VOC{year}"
    for image_set, names in sets.items():
        write(base / "ImageSets" / section / f"{image_set}.txt", "".join(f"{name}\n" for name in names))
        for seed, name in enumerate(names):
            picture(base / "JPEGImages" / f"{name}.jpg", seed)
            write(base / "Annotations" / f"{name}.xml", annotation(thing()))
    return base
