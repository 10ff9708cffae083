"""Boxes stay inside their picture and keep an area, also after they are rounded or clipped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.catalog.annotation_rules import clip_box, read_box, read_label

SIZES = st.integers(1, 70_000)
COORDINATES = st.floats(allow_nan=False, allow_infinity=False)
NEAR = st.floats(-10, 70_010, allow_nan=False)


def is_inside(box: list[float], width: int, height: int) -> bool:
    x1, y1, x2, y2 = box
    return 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


@given(st.lists(NEAR, min_size=4, max_size=4), SIZES, SIZES)
def test_an_accepted_box_is_inside_close_to_the_sent_one_and_accepted_again_unchanged(box: list[float], width: int, height: int) -> None:
    try:
        found = read_box(box, width, height)
    except ValueError:
        assert not is_inside([round(value, 2) for value in box], width, height)
        return
    assert is_inside(found, width, height)
    assert max(abs(sent - kept) for sent, kept in zip(box, found, strict=True)) <= 0.00501
    assert read_box(found, width, height) == found


@given(st.lists(COORDINATES | NEAR, min_size=4, max_size=4), SIZES, SIZES)
def test_a_clipped_box_is_inside_with_an_area_or_is_none(box: list[float], width: int, height: int) -> None:
    found = clip_box(box, width, height)
    if found is None:
        x1, y1, x2, y2 = box
        overlaps = min(x2, width) - max(x1, 0) > 0.011 and min(y2, height) - max(y1, 0) > 0.011
        assert not overlaps
    else:
        assert is_inside(found, width, height)
        assert clip_box(found, width, height) == found == read_box(found, width, height)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", range(4))
def test_a_box_with_a_number_that_is_not_finite_is_not_clipped(value: float, position: int) -> None:
    box = [1.0, 1.0, 9.0, 9.0]
    box[position] = value
    assert clip_box(box, 10, 10) is None


@pytest.mark.parametrize(
    ("box", "word"),
    [
        ([-0.01, 0, 5, 5], "inside"), ([0, 0, 10.01, 5], "inside"), ([0, 0, 5, 8.5], "inside"), ([0, -1e300, 5, 5], "inside"),
        ([5, 0, 5, 5], "area"), ([5, 0, 4, 5], "area"), ([0, 5, 5, 5.004], "area"), ([10, 8, 10, 8], "area"),
    ],
)  # fmt: skip
def test_a_refused_box_is_told_why(box: list[float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        read_box(box, 10, 8)


def test_the_whole_picture_is_a_box_and_zero_has_no_sign() -> None:
    assert read_box([0, 0, 10, 8], 10, 8) == [0, 0, 10, 8]
    assert str(read_box([-0.001, -0.0, 10.004, 8], 10, 8)) == "[0.0, 0.0, 10.0, 8.0]"


@pytest.mark.parametrize("text", ["milk", " milk ", "Brot/Brötchen", "牛乳", "100 %", "a" * 100, "x.$y", "\U0001f95b"])
def test_a_label_is_trimmed(text: str) -> None:
    assert read_label(text) == text.strip()


@pytest.mark.parametrize("text", ["", "  ", "a" * 101, "a\0b", "a\nb", "\u202egnp", "a\u200f", "\u200d", "\ud800", "a\u2028b"])
def test_a_text_that_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        read_label(text)
