"""Files of event recordings: N-MNIST's ``.bin``, AEDAT 2.0 of the DVS128, and NumPy's ``.npy`` and ``.npz``.

    events = read_events("birds/3.aedat", content)     # a structured array with x, y, t (microseconds) and p

Contents are given as bytes, so that members of archives need no unpacking. A file that is cut off or of another kind is a ``DataError``.
``suites.recordings`` then checks the events themselves.
"""

from __future__ import annotations

import io
from pathlib import PurePosixPath

import numpy as np

from harness.plugin import DataError, did_you_mean
from suites.recordings import EVENT

SPECIAL = 1 << 15  # bit of an AEDAT 2.0 address: not of a pixel (synchronisation, for one)


def read_events(name: str, content: bytes, kind: str = "auto", columns: str = "txyp", notes: list[str] | None = None) -> np.ndarray:
    """Return the events in ``content``, by the ending of ``name`` or as ``kind`` ("bin", "aedat", "npy", "npz").

    ``columns`` says what the columns of an ``.npy`` file without field names are; what is passed over is added to ``notes``. Raises
    DataError.
    """
    kind = kind if kind != "auto" else PurePosixPath(name).suffix[1:].lower()
    readers = {"bin": read_bin, "aedat": lambda n, c: read_aedat(n, c, notes), "npy": lambda n, c: read_npy(n, c, columns), "npz": read_npz}
    if kind not in readers:
        raise DataError(f"{name} is not a known kind of event file{did_you_mean(kind, readers)}")
    return readers[kind](name, content)


def read_bin(name: str, content: bytes) -> np.ndarray:
    """Return the events of N-MNIST and N-Caltech101: five bytes each (x, y, a bit of polarity and 23 bits of microseconds)."""
    from tonic.io import read_mnist_file  # imports half of scipy

    if len(content) % 5 or not content:
        raise DataError(f"{name} is truncated: {len(content)} bytes are no whole number of events of 5 bytes; get it again")
    return read_mnist_file(io.BytesIO(content), EVENT, is_stream=True)


def read_aedat(name: str, content: bytes, notes: list[str] | None = None) -> np.ndarray:
    """Return the events of AEDAT 2.0 with addresses of the DVS128 (jAER): y in bits 8 to 14, x in 1 to 7, bit 0 is 0 for brighter.

    Times start at 0. Special events (bit 15) are of no pixel and left out, which is added to ``notes``.
    """
    start, version = 0, ""
    while content[start : start + 1] == b"#":
        end = content.find(b"\n", start)
        line = content[start : end if end >= 0 else None].decode("latin-1").strip()
        version = version or line.removeprefix("#!AER-DAT") * line.startswith("#!AER-DAT")
        start = end + 1 if end >= 0 else len(content)
    if not version.startswith("2"):
        raise DataError(f"{name} is not AEDAT 2.0 (its header says {version or 'nothing'}); convert it, or name its format")
    if (len(content) - start) % 8:
        raise DataError(f"{name} is truncated: {len(content) - start} bytes are no whole number of events of 8 bytes; get it again")
    address, time = np.frombuffer(content, ">u4", offset=start).reshape(-1, 2).astype(np.int64).T
    pixel = (address & SPECIAL) == 0
    if notes is not None and not pixel.all():
        notes.append("AEDAT recordings have special events, which are left out")
    address, time = address[pixel], time[pixel]
    events = np.empty(len(address), EVENT)
    events["x"], events["y"], events["p"] = address >> 1 & 127, address >> 8 & 127, 1 - (address & 1)
    events["t"] = time - (time[0] if len(time) else 0)
    return events


def read_npy(name: str, content: bytes, columns: str = "txyp") -> np.ndarray:
    """Return the events of an ``.npy`` file: a structured array, or ``[events, 4]`` whose columns are named by ``columns``."""
    found = _loaded(name, content)
    if not isinstance(found, np.ndarray):
        raise DataError(f"{name} is an archive of arrays, not one array; name it .npz")
    if found.dtype.names:
        return found
    if found.ndim != 2 or found.shape[1] != len(columns):
        raise DataError(
            f"{name} has shape {found.shape}; events are [events, {len(columns)}] with columns {columns}, or a structured array"
        )
    return _structured({field: found[:, i] for i, field in enumerate(columns)})


def read_npz(name: str, content: bytes) -> np.ndarray:
    """Return the events of an ``.npz`` file with the arrays x, y, t and p."""
    found = _loaded(name, content)
    if isinstance(found, np.ndarray):
        raise DataError(f"{name} is one array, not an archive of arrays; name it .npy")
    if missing := [field for field in "xytp" if field not in found]:
        raise DataError(f"{name} lacks {', '.join(missing)}; it holds {', '.join(found) or 'nothing'}; events are arrays x, y, t and p")
    fields = {field: found[field].ravel() for field in "xytp"}
    if len({len(values) for values in fields.values()}) > 1:
        raise DataError(f"{name} has arrays of several lengths: {', '.join(f'{key} {len(fields[key])}' for key in fields)}")
    return _structured(fields)


def _loaded(name: str, content: bytes) -> np.ndarray | dict[str, np.ndarray]:
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
        return found if isinstance(found, np.ndarray) else {key: found[key] for key in found.files}
    except Exception as error:  # of zipfile, of the header's parser, of the array's length
        raise DataError(f"{name} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


def _structured(fields: dict[str, np.ndarray]) -> np.ndarray:
    events = np.empty(len(fields["t"]), [(field, values.dtype) for field, values in fields.items()])
    for field, values in fields.items():
        events[field] = values
    return events
