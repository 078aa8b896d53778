import pytest
from voc_tree import HEIGHT, WIDTH, annotation, thing, write

from harness.plugin import DataError
from suites import voc

CLASSES = ("cat", "dog")


@pytest.fixture
def read(tmp_path):
    def do(text):
        return voc.read(write(tmp_path / "7.xml", text), CLASSES, HEIGHT, WIDTH)

    return do


def test_corners_count_from_one_and_include_both(read):
    found = read(annotation(thing("dog", (11, 6, 30, 25)), thing("cat", (1, 1, WIDTH, HEIGHT))))
    assert found.targets.tolist() == [[1, 10, 5, 30, 25], [0, 0, 0, WIDTH, HEIGHT]]
    assert found.empty == 0


def test_corners_may_be_fractions_and_begin_at_zero(read):
    assert read(annotation(thing("dog", (0, 1.5, 30.25, 25)))).targets.tolist() == [[1, 0, 0.5, 30.25, 25]]


def test_an_image_may_hold_nothing(read):
    assert read(annotation()).targets.shape == (0, 5)


def test_difficult_objects_are_marked_as_not_asked_for(read):
    assert read(annotation(thing("dog", difficult=1), thing("cat", difficult=1))).targets[:, 0].tolist() == [-3, -2]


def test_boxes_without_area_are_left_out_and_counted(read):
    found = read(annotation(thing("dog", (5, 5, 5, 9)), thing("dog", (5, 9, 8, 9)), thing()))
    assert (len(found.targets), found.empty) == (1, 2)


def test_a_size_of_zero_or_none_says_nothing(read):
    assert len(read(annotation(thing(), size=(0, 0))).targets) == len(read(annotation(thing(), size=None)).targets) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (annotation(thing("dgo")), r"7\.xml, object 0: class 'dgo' is unknown; did you mean 'dog'"),
        (annotation(thing(), thing(box=(30, 6, 11, 25))), r"7\.xml, object 1: box 30, 6, 11, 25 is reversed"),
        (annotation(thing(box=(1, 25, 9, 6))), "reversed"),
        (annotation(thing(box=(1, 1, WIDTH + 1, 9))), "leaves its image, which is 60 wide and 40 high"),
        (annotation(thing(box=(1, 1, 9, HEIGHT + 1))), "leaves its image"),
        (annotation(thing(box=(-1, 1, 9, 9))), "leaves its image"),
        (annotation(thing(box=("", 1, 9, 9))), "xmin is None, not a number"),
        (annotation(thing(box=(1, "nan", 9, 9))), "ymin is 'nan', not a number"),
        (annotation("<object><name>dog</name></object>"), "xmin is None"),
        (annotation("<object><bndbox/></object>"), "class None is unknown"),
        (annotation(size=(HEIGHT, WIDTH)), "is of an image 40 wide and 60 high, which is 60 wide and 40 high"),
        ("<annotation><object>", r"7\.xml is not XML"),
        ("<html><body/></html>", "its root is <html>"),
        ("<annotation/>", "no VOC annotation"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_name(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_missing_annotation_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read gone\.xml"):
        voc.read(tmp_path / "gone.xml", CLASSES, HEIGHT, WIDTH)


def test_classes_of_files_are_sorted(tmp_path):
    paths = [write(tmp_path / f"{n}.xml", annotation(thing(n), thing("cat"))) for n in ("dog", "bird")] + [
        write(tmp_path / "none.xml", annotation())
    ]
    assert voc.classes_of(paths) == ("bird", "cat", "dog")
