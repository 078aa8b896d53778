"""Garbage collection rests within, and only within."""

import gc

import pytest

from harness.uncollected import uncollected


def test_collection_rests_within_and_goes_on_after_an_error():
    with pytest.raises(KeyError), uncollected():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_who_had_switched_it_off_keeps_it_off():
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
