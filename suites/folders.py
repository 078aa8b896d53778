"""Folders of the user's own images: finding one, pairing files by stem, and a split that depends on names alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from harness.plugin import DataError
from harness.task import Split
from suites.sources import roots

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SHARES = {"train": (0, 70), "validation": (70, 80), "test": (80, 100)}  # percent


def find_folder(path: str) -> Path | None:
    """Return the folder that ``path`` names, absolute or below a root of the data, or None."""
    given = Path(path).expanduser()
    places = [given] if given.is_absolute() else [root / given for root in roots()]
    return next((place for place in places if place.is_dir()), None) if path else None


def checked_folder(path: str) -> Path:
    """Return the folder that ``path`` names; raise DataError, which says what to do, if there is none."""
    found = find_folder(path)
    if found is None:
        what = f"there is no folder {path}" if path else "no folder is named"
        raise DataError(f"{what}; name one with [path=FOLDER], absolute or below SPIKEBENCH_DATA")
    return found


def stems(folder: Path, names: Iterable[str], endings: Iterable[str]) -> dict[str, Path]:
    """Return stem -> file of the first of the subfolders ``names`` that is there.

    Raises DataError if none is there, or if two files have one stem.
    """
    names, endings = list(names), {ending.lower() for ending in endings}
    inside = next((folder / name for name in names if (folder / name).is_dir()), None)
    if inside is None:
        raise DataError(f"{folder.name} has no folder {names[0]}/ (nor {', '.join(names[1:])})")
    found: dict[str, Path] = {}
    for path in sorted(inside.iterdir()):
        if path.suffix.lower() in endings:
            if path.stem in found:
                raise DataError(f"{inside.name} holds {path.name} and {found[path.stem].name}; each name may be used once")
            found[path.stem] = path
    return found


def images_of(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return stem -> image file of a subfolder; raise DataError if it has none."""
    names = list(names)
    found = stems(folder, names, IMAGES)
    if not found:
        raise DataError(f"{folder.name} has no images in {' or '.join(names)} ({', '.join(IMAGES)})")
    return found


def portion(names: Iterable[str], split: Split) -> list[str]:
    """Return the names of a split, in an order that mixes them: by the SHA-256 of each, the same wherever and whatever else is there."""
    low, high = SHARES[split]
    places = {name: int(hashlib.sha256(name.encode()).hexdigest(), 16) for name in names}
    return [name for name in sorted(places, key=places.__getitem__) if low <= places[name] % 100 < high]
