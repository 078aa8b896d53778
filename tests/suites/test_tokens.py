import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plugin import DataError
from suites.tokens import Vocabulary, read

LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=200)


def spell(text):
    return [text.types[number] for number in text.ids]


@given(LINES)
def test_characters_are_those_of_the_file(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "chars.txt"
    path.write_text(content, encoding="utf-8", newline="")
    assert "".join(spell(read(path, "char"))) == content


@given(LINES)
def test_words_are_what_lies_between_white_space_and_lines_have_an_end(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "words.txt"
    path.write_text(content, encoding="utf-8", newline="")
    expected = [word for line in content.split("\n") for word in [*line.split(), "<eos>"]]
    if not content or content.endswith("\n"):
        expected = expected[:-1]  # what follows the last line end is no line
    assert spell(read(path, "word")) == expected


def test_a_carriage_return_is_a_character_of_its_own(tmp_path):
    (tmp_path / "t").write_bytes(b"a\r\nb")
    assert spell(read(tmp_path / "t", "char")) == ["a", "\r", "\n", "b"]
    assert spell(read(tmp_path / "t", "word")) == ["a", "<eos>", "b", "<eos>"]


@pytest.mark.parametrize("level", ["char", "word"])
def test_a_file_that_is_not_text_is_named(tmp_path, level):
    (tmp_path / "image.txt").write_bytes(b"abc\xff\xfe")
    with pytest.raises(DataError, match=r"image\.txt is not text in UTF-8: .* at byte 3"):
        read(tmp_path / "image.txt", level)


@pytest.mark.parametrize("level", ["char", "word"])
def test_a_folder_is_no_text(tmp_path, level):
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, level)


@given(st.lists(st.sampled_from("abcdefg"), min_size=1), st.integers(2, 9))
def test_the_vocabulary_is_the_most_frequent_tokens(tmp_path_factory, letters, size):
    path = tmp_path_factory.getbasetemp() / "vocabulary.txt"
    path.write_text("".join(letters))
    text = read(path, "char")
    known = Vocabulary.of(text, size)
    counts = collections.Counter(letters)
    assert known.tokens == ("<unk>", *sorted(counts, key=lambda letter: (-counts[letter], letter))[: size - 1])
    numbers = known.number(text)
    assert [known.tokens[n] for n in numbers] == [letter if letter in known.tokens else "<unk>" for letter in letters]
    assert known.left_out(text) == int((numbers == 0).sum())


def test_the_texts_own_unknown_words_are_the_vocabularys(tmp_path):
    (tmp_path / "t").write_text("<unk> a <unk> b b")
    text = read(tmp_path / "t", "word")
    known = Vocabulary.of(text, 3)
    assert known.tokens == ("<unk>", "b", "<eos>")
    assert known.number(text).tolist() == [0, 0, 0, 1, 1, 2]
    assert known.left_out(text) == 1
