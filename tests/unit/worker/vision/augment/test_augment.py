"""Augmentations: the contract's names, the same bytes again, boxes that move along, on whatever device and at any size."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.augmentations import AUGMENTATIONS, DEFAULT_AUGMENTATIONS
from tests.support import paths
from tests.unit.worker.vision.augment.pixel_backends import MAKERS
from worker.vision import image_steps
from worker.vision.augment import operations, pixels_opencv, pixels_torch
from worker.vision.augment.augmenter import Augmenter
from worker.vision.augment.operations import Matrix, Plan
from worker.vision.image_steps import Prepared
from worker.vision.imaging import Rgb, encode_jpeg

RGB = np.random.default_rng(2).integers(0, 256, (96, 128, 3), np.uint8)
SIZES = [(1, 1), (1, 90), (90, 1), (2, 2), (3, 90), (90, 3)]


def test_the_worker_knows_exactly_the_names_of_the_contract() -> None:
    for known in (operations.OPERATIONS, pixels_opencv.OPERATIONS):
        assert tuple(known) == AUGMENTATIONS
    assert {*pixels_torch.OPERATIONS, "jpeg_artifacts"} == set(AUGMENTATIONS)
    assert set(DEFAULT_AUGMENTATIONS) <= set(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("holes", "share"),
    [
        ([], 1.0),
        ([[0, 0, 100, 100]], 0.0),
        ([[20, 10, 30, 30]], 0.75),
        ([[20, 10, 30, 30], [25, 0, 35, 20]], 0.75 - 10 * 10 / 800 + 5 * 10 / 800),
        ([[0, 0, 5, 5], [60, 10, 80, 30]], 1.0),
    ],
)
def test_what_holes_leave_of_a_box_is_counted_once(holes: list[list[int]], share: float) -> None:
    assert operations.shown([10, 10, 50, 30], holes) == pytest.approx(share)


def test_a_box_that_is_cut_out_vanishes() -> None:
    cutout = Plan("cutout", 100, 100, {"holes": [[10, 10, 50, 30]]}, np.eye(3), 1)
    assert cutout.moved([[12, 12, 50, 30], [0, 0, 60, 60]]) == [(1, [0, 0, 60, 60])]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_image_gives_the_same_parameters_and_boxes(name: str) -> None:
    first, again = (Augmenter(RGB, image_id="a").apply(name, [[10, 10, 60, 50]]) for _ in range(2))
    assert (first.params, first.boxes) == (again.params, again.boxes)
    assert np.array_equal(first.rgb, again.rgb)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_plan_gives_the_same_bytes_and_another_does_not_disturb_it(name: str, maker: str) -> None:
    rgb = RGB.copy()
    pixels = MAKERS[maker](rgb)
    plan, other = (operations.draw(name, 96, 128, image_id=image_id) for image_id in "ab")
    first, between, again = pixels(plan), pixels(other), pixels(plan)
    assert np.array_equal(first, again)
    assert np.array_equal(first, MAKERS[maker](RGB)(plan))
    assert plan.params == other.params or not np.array_equal(first, between)
    assert first.dtype == np.uint8
    assert first.shape == RGB.shape
    assert np.array_equal(rgb, RGB)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_picture_of_any_size_is_augmented(name: str, size: tuple[int, int], maker: str) -> None:
    height, width = size
    rgb = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    for image_id in "abc":
        plan = operations.draw(name, height, width, image_id=image_id)
        made = MAKERS[maker](rgb)(plan)
        assert made.shape == rgb.shape
        assert made.dtype == np.uint8
        for _, (x1, y1, x2, y2) in plan.moved([[0, 0, width, height]]):
            assert 0 <= x1 <= x2 <= width
            assert 0 <= y1 <= y2 <= height


@pytest.mark.parametrize(("name", "digest"), [("noise", "c88be4f59f1f45a6"), ("low_light", "572edc6ae8ef4d27")])
def test_grain_is_that_of_the_recipe(name: str, digest: str) -> None:
    """Grain goes on where the parameters' draws ended: whoever draws one more changes its bytes, and has to raise ``RECIPE``."""
    made = pixels_opencv.make(RGB, operations.draw(name, 96, 128, image_id="a"))
    assert hashlib.sha256(made.tobytes()).hexdigest()[:16] == digest


@pytest.mark.slow
def test_a_helper_augments_without_torch() -> None:
    do = "Augmenter(numpy.zeros((9, 9, 3), 'uint8'), image_id='a').apply('rotate', [])"
    code = f"import numpy, sys, worker.sandbox.child; from worker.vision.augment.augmenter import Augmenter; {do}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, timeout=120, check=True)


def finished(device: str) -> Prepared:
    found = [{"label": "a", "score": 0.9, "box": [10.0, 10, 60, 50]}, {"label": "b", "score": 0.8, "box": [0.0, 0, 128, 96]}]
    return image_steps.finish(Prepared("a", RGB, {}), found, list(AUGMENTATIONS), device)


def test_a_picture_is_brought_to_its_device_once_and_parameters_and_boxes_are_the_same_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    to_tensor = pixels_torch.to_tensor

    def on_cpu(rgb: Rgb, device: str | torch.device) -> torch.Tensor:
        asked.append(device)
        return to_tensor(rgb, "cpu")

    monkeypatch.setattr(pixels_torch, "to_tensor", on_cpu)
    there, here = finished("cuda"), finished("cpu")
    assert asked == ["cuda"]
    assert there.fields == here.fields
    assert set(there.files) == {"boxes", *AUGMENTATIONS}
    assert there.files["noise"] != here.files["noise"]


def test_where_a_gpus_memory_does_not_do_opencv_makes_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_rgb: Rgb, _device: str) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(pixels_torch, "to_tensor", full)
        there, here = finished("cuda"), finished("cpu")
    assert (there.files, there.fields) == (here.files, here.fields)

    class Small(pixels_torch.Pixels):
        """A device with room for the picture, and for none to be warped."""

        asked = 0

        def _made(self, plan: Plan) -> Rgb:
            self.asked += 1
            if plan.name == "rotate":
                raise torch.OutOfMemoryError("no room")
            return super()._made(plan)

    small = Small(RGB, "cpu")
    noise, rotate = (operations.draw(name, 96, 128, image_id="a") for name in ("noise", "rotate"))
    assert np.array_equal(small(noise), pixels_torch.Pixels(RGB, "cpu")(noise))
    for plan in (rotate, noise):
        assert np.array_equal(small(plan), pixels_opencv.make(RGB, plan))
    assert small.asked == 2


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
        files.append(encode_jpeg(Augmenter(large, image_id="a").apply(name, []).rgb))
    assert files[0] == files[1]


def test_a_box_of_which_little_remains_vanishes() -> None:
    shift = np.array([[1.0, 0, 100], [0, 1, 0], [0, 0, 1]])
    assert operations.move_box([0, 0, 20, 20], shift, 128, 96) == [100, 0, 120, 20]
    assert operations.move_box([20, 0, 60, 20], shift, 128, 96) is None
    assert operations.move_box([60, 0, 80, 20], shift, 128, 96) is None


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
    assert operations.move_box(box, IDENTITY, 128, 96) == pytest.approx(box, abs=0.051)


@given(BOXES, ANY_MATRIX)
def test_whatever_the_matrix_a_box_is_inside_the_frame_or_gone(box: list[float], matrix: Matrix) -> None:
    moved = operations.move_box(box, matrix, 128, 96)
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
    assume(abs(share - operations.KEPT_SHARE) > 1e-6)
    moved = operations.move_box(box, np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]]), 128, 96)
    assert (moved is not None) == (share > operations.KEPT_SHARE)


@given(BOXES, AFFINE, st.integers(1, 128), st.integers(1, 96))
def test_a_larger_frame_loses_nothing_of_what_a_smaller_one_holds(
    box: list[float], matrix: Matrix, width: int, height: int
) -> None:
    small, large = operations.move_box(box, matrix, width, height), operations.move_box(box, matrix, 128, 96)
    if small is not None:
        assert large is not None
        assert large[:2] == small[:2]
        assert large[2] >= small[2]
        assert large[3] >= small[3]


@pytest.mark.parametrize("bottom", [[0, 0, 0], [0, 0, -1], [-0.02, 0, 1], [-0.1, 0, 1]])
def test_a_box_that_reaches_the_horizon_is_gone(bottom: list[float]) -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], bottom], np.float64)
    assert operations.move_box([10, 10, 50, 50], matrix, 128, 96) is None


def test_a_box_that_stays_before_the_horizon_is_projected() -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0.01, 0, 1]])
    assert operations.move_box([0, 0, 100, 60], matrix, 128, 96) == [0, 0, 50, 60]


def test_what_is_finished_keeps_none_of_its_pictures_pixels() -> None:
    done = image_steps.finish(Prepared("0" * 36, np.zeros((48, 64, 3), np.uint8), {}), [], ["rotate"], "cpu")
    assert done.files.keys() == {"boxes", "rotate"}
    assert done.rgb.size == 0
    assert done.rgb.base is None
