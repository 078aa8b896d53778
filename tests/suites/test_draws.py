import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from suites.draws import integers, stream


def test_a_stream_is_the_mersenne_twister_of_its_names():
    import hashlib
    import random

    seed = int.from_bytes(hashlib.sha256(b"a\n1").digest()[:4], "little")
    ours = stream("a", 1).random_sample(5)
    # Python's generator is the same twister; NumPy's legacy seeding is init_genrand, here done by hand.
    state, words = seed & 0xFFFFFFFF, []
    for place in range(624):
        words.append(state)
        state = (1812433253 * (state ^ (state >> 30)) + place + 1) & 0xFFFFFFFF
    twister = random.Random()
    twister.setstate((3, (*words, 624), None))
    assert ours.tolist() == [twister.random() for _ in range(5)]


def test_other_names_give_other_numbers():
    assert stream("a", "train").random_sample() != stream("a", "test").random_sample()


@given(st.integers(1, 1000), st.integers(0, 100))
def test_whole_numbers_lie_below_their_size(size, seed):
    found = integers(stream(seed), 50, size)
    assert found.dtype == np.int64
    assert (found >= 0).all() and (found < size).all()


def test_whole_numbers_are_all_as_likely():
    counts = np.bincount(integers(stream("dice"), 60_000, 6), minlength=6)
    assert (abs(counts - 10_000) < 400).all()  # four standard deviations
