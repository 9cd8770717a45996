"""RefCOCO: boxes, what they have in common, and what is read from words."""

import math

import pytest
from benchmark_cases import refcoco, scores
from hypothesis import given, settings
from hypothesis import strategies as some

from schemas.errors import InputError
from training.evaluate.measures.boxes import box_in, from_xywh, iou, xywh_in

TEN = (0.0, 0.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("a", "b", "common"),
    [
        (TEN, TEN, 1.0),
        (TEN, (0, 0, 10, 5), 0.5),
        (TEN, (5, 0, 15, 10), 1 / 3),
        (TEN, (0, 0, 10, 4.9), 0.49),
        ((0, 0, 3, 3), (0, 0, 3, 2), 2 / 3),
        (TEN, (20, 20, 30, 30), 0.0),
        (TEN, (5, 5, 5, 9), 0.0),
        (TEN, (9, 9, 1, 1), 0.0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),
        (TEN, (0, 0, math.nan, 10), 0.0),
        (TEN, (0, 0, math.inf, 10), 0.0),
    ],
)
def test_what_boxes_have_in_common(a, b, common):
    assert iou(a, b) == pytest.approx(common, abs=1e-12)
    assert iou(b, a) == iou(a, b)


_side = some.floats(-1e3, 1e3)


@settings(deadline=None)
@given(some.tuples(_side, _side, _side, _side), some.tuples(_side, _side, _side, _side))
def test_common_area_is_symmetric_and_between_zero_and_one(a, b):
    assert iou(a, b) == iou(b, a)
    assert 0.0 <= iou(a, b) <= 1.0 + 1e-9


def test_corner_and_size_are_the_same_box_as_two_corners():
    assert from_xywh(10, 20, 30, 40) == (10, 20, 40, 60) == xywh_in([10, 20, "30", 40])
    assert xywh_in(None) is xywh_in([1, 2, 3]) is xywh_in({"a": 1}) is xywh_in(["a", 2, 3, 4]) is None


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[10, 20, 40, 60]", (10, 20, 40, 60)),
        ("The box is at [0.1, 0.4, 0.5, 1.0].", (10, 20, 50, 50)),
        ("<ref>dog</ref><box>(100,400),(500,1000)</box>", (10, 20, 50, 50)),
        ("<|box_start|>(0,0),(1,1000)<|box_end|>", (0, 0, 0.1, 50)),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]```', (1, 2, 3, 4)),
        ("10 20 40 60", (10, 20, 40, 60)),
        ("-5 0 1e1 7.5", (-5, 0, 10, 7.5)),
        ("In picture 2 it is [10, 20, 40, 60]", (10, 20, 40, 60)),
        ("I see no dog.", None),
        ("1, 2, 3", None),
        ("", None),
    ],
)
def test_the_box_that_words_name_in_a_picture_of_100_by_50(text, box):
    assert box_in(text, 100, 50) == (None if box is None else pytest.approx(box))


def boxes(*sizes: object) -> list[dict]:
    return [{"sent_id": n, "bbox": size} for n, size in enumerate(sizes)]


def test_a_box_is_right_from_one_half_on(tmp_path):
    said = boxes([0, 0, 10, 10], [0, 0, 10, 5], [5, 0, 10, 10], [0, 0, 10, 4.9], [0, 0, 3, 2])
    found = scores(tmp_path, "refcoco", refcoco(), said, files=True)
    assert (found["accuracy"], found["questions"], found["unparsed"]) == (0.6, 5, 0)
    assert found["per_split"] == {"testA": {"accuracy": 0.6, "questions": 5}}
    assert scores(tmp_path, "refcoco", refcoco(), said, files=True, official=True) == found


def test_boxes_without_area_and_words_without_a_box_are_wrong(tmp_path):
    said = boxes([0, 0, 0, 10], [200, 200, 1, 1], [0, 0, -10, -10], "nothing", None)
    found = scores(tmp_path, "refcoco", refcoco(), said, files=True)
    assert (found["accuracy"], found["unparsed"]) == (0.0, 2)


def test_a_split_that_is_begun_must_be_whole_and_others_are_left_out(tmp_path):
    with pytest.raises(InputError, match="no prediction of '1', '2', '3' … \\(4 of 5 missing"):
        scores(tmp_path, "refcoco", refcoco(), boxes([0, 0, 10, 10]), files=True)
    train = [{"sent_id": 5, "bbox": [0, 0, 1, 1]}]
    found = scores(tmp_path, "refcoco", refcoco(), train, files=True)
    assert (found["accuracy"], list(found["per_split"])) == (1.0, ["train"])
