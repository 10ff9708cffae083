"""Augmentations: the contract's names, the same bytes again, boxes that move along."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.contract import AUGMENTATIONS, DEFAULT_AUGMENTATIONS
from worker.vision import augment
from worker.vision.imaging import encode_jpeg

RGB = np.random.default_rng(2).integers(0, 256, (96, 128, 3), np.uint8)


def test_the_worker_knows_exactly_the_names_of_the_contract() -> None:
    assert tuple(augment.OPERATIONS) == AUGMENTATIONS
    assert set(DEFAULT_AUGMENTATIONS) <= set(AUGMENTATIONS)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_image_gives_the_same_bytes_and_another_does_not_disturb_it(name: str) -> None:
    before = RGB.copy()
    first = augment.apply(name, RGB, [[10, 10, 60, 50]], image_id="a")
    again = augment.apply(name, RGB, [[10, 10, 60, 50]], image_id="a")
    assert (first.rgb == again.rgb).all()
    assert (first.params, first.boxes) == (again.params, again.boxes)
    assert first.rgb.dtype == np.uint8
    assert first.rgb.shape == RGB.shape
    assert (before == RGB).all()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Let a test choose the number of OpenCV's threads."""
    usual = cv2.getNumThreads()
    yield cv2.setNumThreads
    cv2.setNumThreads(usual)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_any_number_of_threads_makes_the_same_file(name: str, threads: Callable[[int], None]) -> None:
    large = cv2.resize(RGB, (1280, 960), interpolation=cv2.INTER_CUBIC)
    files = []
    for number in (1, 4):
        threads(number)
        files.append(encode_jpeg(augment.apply(name, large, [], image_id="a").rgb))
    assert files[0] == files[1]


def test_a_box_of_which_little_remains_vanishes() -> None:
    shift = np.array([[1.0, 0, 100], [0, 1, 0], [0, 0, 1]])
    assert augment.move_box([0, 0, 20, 20], shift, 128, 96) == [100, 0, 120, 20]
    assert augment.move_box([20, 0, 60, 20], shift, 128, 96) is None
    assert augment.move_box([60, 0, 80, 20], shift, 128, 96) is None


IDENTITY = np.eye(3)
BOXES = st.tuples(st.floats(0, 100), st.floats(0, 70), st.floats(1, 28), st.floats(1, 26)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
AFFINE = st.tuples(*[st.floats(-2, 2)] * 4, *[st.floats(-90, 90)] * 2).map(
    lambda m: np.array([[m[0], m[1], m[4]], [m[2], m[3], m[5]], [0, 0, 1]])
)
ANY_NUMBER = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.0, 5e-324, 1e-7, -1e9, 1e9]))
ANY_MATRIX = st.lists(ANY_NUMBER, min_size=9, max_size=9).map(lambda numbers: np.array(numbers).reshape(3, 3))


@given(BOXES)
def test_the_identity_keeps_a_box(box: list[float]) -> None:
    assert augment.move_box(box, IDENTITY, 128, 96) == pytest.approx(box, abs=0.051)


@given(BOXES, ANY_MATRIX)
def test_whatever_the_matrix_a_box_is_inside_the_frame_or_gone(box: list[float], matrix: augment.Matrix) -> None:
    moved = augment.move_box(box, matrix, 128, 96)
    if moved is not None:
        x1, y1, x2, y2 = moved
        assert 0 <= x1 <= x2 <= 128
        assert 0 <= y1 <= y2 <= 96


@given(BOXES, st.floats(-130, 130), st.floats(-100, 100))
def test_a_box_is_kept_exactly_when_enough_of_it_remains(box: list[float], dx: float, dy: float) -> None:
    x1, y1, x2, y2 = box
    wide = max(0.0, min(128, x2 + dx) - max(0, x1 + dx))
    high = max(0.0, min(96, y2 + dy) - max(0, y1 + dy))
    share = wide * high / ((x2 - x1) * (y2 - y1))
    assume(abs(share - augment.KEPT_SHARE) > 1e-6)
    moved = augment.move_box(box, np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]]), 128, 96)
    assert (moved is not None) == (share > augment.KEPT_SHARE)


@given(BOXES, AFFINE, st.integers(1, 128), st.integers(1, 96))
def test_a_larger_frame_loses_nothing_of_what_a_smaller_one_holds(
    box: list[float], matrix: augment.Matrix, width: int, height: int
) -> None:
    small, large = augment.move_box(box, matrix, width, height), augment.move_box(box, matrix, 128, 96)
    if small is not None:
        assert large is not None
        assert large[:2] == small[:2]
        assert large[2] >= small[2]
        assert large[3] >= small[3]


@pytest.mark.parametrize("bottom", [[0, 0, 0], [0, 0, -1], [-0.02, 0, 1], [-0.1, 0, 1]])
def test_a_box_that_reaches_the_horizon_is_gone(bottom: list[float]) -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], bottom], np.float64)
    assert augment.move_box([10, 10, 50, 50], matrix, 128, 96) is None


def test_a_box_that_stays_before_the_horizon_is_projected() -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0.01, 0, 1]])
    assert augment.move_box([0, 0, 100, 60], matrix, 128, 96) == [0, 0, 50, 60]
