"""Streams and strategies that several tests of the event suite share."""

import numpy as np
from hypothesis import strategies as st

from suites.recordings import EVENT


def stream(count, width=34, height=34, duration=300_000, seed=0):
    random = np.random.default_rng(seed)
    events = np.zeros(count, EVENT)
    events["x"], events["y"] = random.integers(0, width, count), random.integers(0, height, count)
    events["t"], events["p"] = np.sort(random.integers(0, duration, count)), random.integers(0, 2, count)
    return events


@st.composite
def streams(draw, width=9, height=7, most=60, latest=5000):
    count = draw(st.integers(1, most))
    events = np.zeros(count, EVENT)
    for field, limit in (("x", width - 1), ("y", height - 1), ("p", 1)):
        events[field] = draw(st.lists(st.integers(0, limit), min_size=count, max_size=count))
    events["t"] = sorted(draw(st.lists(st.integers(0, latest), min_size=count, max_size=count)))
    return events


def bin_bytes(events):
    """Events as N-MNIST writes them."""
    rows = np.zeros((len(events), 5), np.uint8)
    t = events["t"].astype(np.int64)
    rows[:, 0], rows[:, 1] = events["x"], events["y"]
    rows[:, 2], rows[:, 3], rows[:, 4] = events["p"].astype(np.int64) << 7 | t >> 16, t >> 8 & 255, t & 255
    return rows.tobytes()


def aedat_bytes(events, header=b"#!AER-DAT2.0\r\n# any text\r\n", start=1_000_000):
    """Events as jAER writes those of a DVS128."""
    address = events["y"].astype(np.int64) << 8 | events["x"].astype(np.int64) << 1 | (1 - events["p"].astype(np.int64))
    return header + np.stack([address, events["t"] + start], axis=1).astype(">u4").tobytes()
