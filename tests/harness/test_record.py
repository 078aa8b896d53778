"""Records survive a round trip, and what is not a record is refused in one line."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plugin import UsageError
from harness.record import STATUSES, Record, decode_bits, encode_bits, read_record


@given(st.lists(st.booleans(), max_size=70))
def test_bits_survive_coding(bits):
    text = encode_bits(bits)
    assert decode_bits(text, len(bits)) == bits
    assert len(text) == 2 * math.ceil(len(bits) / 8)


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_are_a_big_endian_number_padded_at_its_end(bits):
    padded = "".join("1" if bit else "0" for bit in bits).ljust(8 * math.ceil(len(bits) / 8), "0")
    assert int(encode_bits(bits), 16) == int(padded, 2)


def test_a_record_survives_a_round_trip(make_record, tmp_path):
    record = make_record(report={"threshold": [0.5, 1.0]}, **{"spec.options": {"update": "online"}})
    path = tmp_path / "record.json"
    path.write_text(record.model_dump_json())
    assert read_record(path) == record


def test_figures_that_are_not_finite_survive_a_round_trip_as_valid_json(make_record, tmp_path):
    record = make_record(**{"accuracy.test": math.inf, "accuracy.extra": {"loss": math.nan}, "accuracy.test_curve": [-math.inf, 1.0]})
    path = tmp_path / "record.json"
    path.write_text(record.model_dump_json())

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    read = read_record(path)
    assert read.accuracy.test == math.inf and math.isnan(read.accuracy.extra["loss"])
    assert read.accuracy.test_curve == [-math.inf, 1.0]


def whole(make_record):
    return make_record().model_dump_json().encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "file: Invalid JSON"),
        (lambda text: b"", "file: Invalid JSON"),
        (lambda text: b"[]", "file: "),
        (lambda text: b"{}", "key: Field required"),
        (lambda text: text.replace(b'"schema_version":1', b'"schema_version":2'), "schema_version: "),
        (lambda text: text.replace(b'"key":', b'"run":'), "key: Field required"),
        (lambda text: text.replace(b'"duration":2.0', b'"duration":"long"'), "duration: "),
        (lambda text: text.replace(b'"method":"stbp"', b'"method":7'), "spec.method: "),
        (lambda text: text.replace(b'"status"', b'"extra":1,"status"'), "extra: Extra inputs are not permitted"),
    ],
)
def test_what_is_not_a_whole_record_of_this_schema_is_refused_in_one_line(make_record, tmp_path, change, message):
    path = tmp_path / "record.json"
    path.write_bytes(change(whole(make_record)))
    with pytest.raises(UsageError) as error:
        read_record(path)
    assert str(error.value).startswith(f"record record.json cannot be read: {message}")
    assert "\n" not in str(error.value)


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"\xff\x00\x80")
    with pytest.raises(UsageError, match=r"^record record.json is not text$"):
        read_record(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot read record gone.json: No such file"):
        read_record(tmp_path / "gone.json")
    with pytest.raises(UsageError, match="cannot read record .*: Is a directory"):
        read_record(tmp_path)


def test_every_field_of_a_record_says_what_it_means():
    undescribed = {name for name, field in Record.model_fields.items() if not field.description}
    assert undescribed == {"accuracy", "activity", "memory", "time", "inference"}  # parts, described by their classes
    assert set(STATUSES) == {"ok", "error", "diverged", "out_of_memory", "timeout", "killed"}
