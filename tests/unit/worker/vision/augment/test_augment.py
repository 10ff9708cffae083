"""Augmentations: their names, determinism, transformed boxes, all devices and all image sizes."""

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
from tests.unit.worker.vision.augment.pixel_backends import BACKENDS
from worker.vision import image_steps
from worker.vision.augment import operations, pixels_opencv, pixels_torch
from worker.vision.augment.augmenter import Augmenter
from worker.vision.augment.operations import Matrix, Transform
from worker.vision.image_steps import PreparedImage
from worker.vision.imaging import Rgb, encode_jpeg

RGB = np.random.default_rng(2).integers(0, 256, (96, 128, 3), np.uint8)
SIZES = [(1, 1), (1, 90), (90, 1), (2, 2), (3, 90), (90, 3)]


def test_the_worker_implements_exactly_the_documented_augmentations() -> None:
    for implemented in (operations.OPERATIONS, pixels_opencv.OPERATIONS):
        assert tuple(implemented) == AUGMENTATIONS
    assert {*pixels_torch.OPERATIONS, "jpeg_artifacts"} == set(AUGMENTATIONS)
    assert set(DEFAULT_AUGMENTATIONS) <= set(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("holes", "fraction"),
    [
        ([], 1.0),
        ([[0, 0, 100, 100]], 0.0),
        ([[20, 10, 30, 30]], 0.75),
        ([[20, 10, 30, 30], [25, 0, 35, 20]], 0.75 - 10 * 10 / 800 + 5 * 10 / 800),
        ([[0, 0, 5, 5], [60, 10, 80, 30]], 1.0),
    ],
)
def test_overlapping_holes_are_counted_once_in_the_visible_fraction(holes: list[list[int]], fraction: float) -> None:
    assert operations.visible_fraction([10, 10, 50, 30], holes) == pytest.approx(fraction)


def test_a_box_that_a_hole_covers_is_dropped() -> None:
    cutout = Transform("cutout", 100, 100, {"holes": [[10, 10, 50, 30]]}, np.eye(3), 1)
    assert cutout.transform_boxes([[12, 12, 50, 30], [0, 0, 60, 60]]) == [(1, [0, 0, 60, 60])]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_image_gives_the_same_parameters_and_boxes(name: str) -> None:
    first, again = (Augmenter(RGB, image_id="a").apply(name, [[10, 10, 60, 50]]) for _ in range(2))
    assert (first.params, first.boxes) == (again.params, again.boxes)
    assert np.array_equal(first.rgb, again.rgb)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_transform_gives_the_same_bytes_again_also_after_another_transform(name: str, backend: str) -> None:
    rgb = RGB.copy()
    apply = BACKENDS[backend](rgb)
    transform, other = (operations.sample_transform(name, 96, 128, image_id=image_id) for image_id in "ab")
    first, between, again = apply(transform), apply(other), apply(transform)
    assert np.array_equal(first, again)
    assert np.array_equal(first, BACKENDS[backend](RGB)(transform))
    assert transform.params == other.params or not np.array_equal(first, between)
    assert first.dtype == np.uint8
    assert first.shape == RGB.shape
    assert np.array_equal(rgb, RGB)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_of_any_size_is_augmented(name: str, size: tuple[int, int], backend: str) -> None:
    height, width = size
    rgb = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    for image_id in "abc":
        transform = operations.sample_transform(name, height, width, image_id=image_id)
        augmented = BACKENDS[backend](rgb)(transform)
        assert augmented.shape == rgb.shape
        assert augmented.dtype == np.uint8
        for _, (x1, y1, x2, y2) in transform.transform_boxes([[0, 0, width, height]]):
            assert 0 <= x1 <= x2 <= width
            assert 0 <= y1 <= y2 <= height


@pytest.mark.parametrize(("name", "digest"), [("noise", "c88be4f59f1f45a6"), ("low_light", "572edc6ae8ef4d27")])
def test_the_bytes_of_the_noise_are_those_of_the_recipe_version(name: str, digest: str) -> None:
    """The noise continues the random sequence of the parameters.

    Sampling one more parameter changes the bytes, and requires a new ``RECIPE_VERSION``.
    """
    noisy = pixels_opencv.apply_transform(RGB, operations.sample_transform(name, 96, 128, image_id="a"))
    assert hashlib.sha256(noisy.tobytes()).hexdigest()[:16] == digest


@pytest.mark.slow
def test_a_sandbox_child_augments_without_importing_torch() -> None:
    call = "Augmenter(numpy.zeros((9, 9, 3), 'uint8'), image_id='a').apply('rotate', [])"
    code = f"import numpy, sys, worker.sandbox.child; from worker.vision.augment.augmenter import Augmenter; {call}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, timeout=120, check=True)


def finished(device: str) -> PreparedImage:
    detections = [{"label": "a", "score": 0.9, "box": [10.0, 10, 60, 50]}, {"label": "b", "score": 0.8, "box": [0.0, 0, 128, 96]}]
    return image_steps.finish(PreparedImage("a", RGB, {}), detections, list(AUGMENTATIONS), device)


def test_the_highest_score_of_the_detections_is_stored_and_without_detections_none_is() -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    without = image_steps.finish(PreparedImage("a", rgb, {}), [], [], "cpu")
    assert (finished("cpu").fields["top_score"], "top_score" in without.fields) == (0.9, False)


def test_an_image_is_copied_to_the_device_once_and_parameters_and_boxes_are_the_same_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[Any] = []
    to_tensor = pixels_torch.to_tensor

    def copy_to_cpu(rgb: Rgb, device: str | torch.device) -> torch.Tensor:
        devices.append(device)
        return to_tensor(rgb, "cpu")

    monkeypatch.setattr(pixels_torch, "to_tensor", copy_to_cpu)
    on_cuda, on_cpu = finished("cuda"), finished("cpu")
    assert devices == ["cuda"]
    assert on_cuda.fields == on_cpu.fields
    assert set(on_cuda.files) == {"boxes", *AUGMENTATIONS}
    assert on_cuda.files["noise"] != on_cpu.files["noise"]


def test_opencv_continues_when_the_memory_of_a_gpu_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_rgb: Rgb, _device: str) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(pixels_torch, "to_tensor", fail)
        on_cuda, on_cpu = finished("cuda"), finished("cpu")
    assert (on_cuda.files, on_cuda.fields) == (on_cpu.files, on_cpu.fields)

    class SmallMemory(pixels_torch.TorchBackend):
        """A device whose memory holds the image, but does not suffice to warp it."""

        calls = 0

        def _apply(self, transform: Transform) -> Rgb:
            self.calls += 1
            if transform.name == "rotate":
                raise torch.OutOfMemoryError("out of memory")
            return super()._apply(transform)

    backend = SmallMemory(RGB, "cpu")
    noise, rotate = (operations.sample_transform(name, 96, 128, image_id="a") for name in ("noise", "rotate"))
    assert np.array_equal(backend(noise), pixels_torch.TorchBackend(RGB, "cpu")(noise))
    for transform in (rotate, noise):
        assert np.array_equal(backend(transform), pixels_opencv.apply_transform(RGB, transform))
    assert backend.calls == 2


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """A function that sets the number of OpenCV's threads; it is restored after the test."""
    previous = cv2.getNumThreads()
    yield cv2.setNumThreads
    cv2.setNumThreads(previous)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_number_of_threads_does_not_change_the_file(name: str, threads: Callable[[int], None]) -> None:
    large = cv2.resize(RGB, (1280, 960), interpolation=cv2.INTER_CUBIC)
    files = []
    for count in (1, 4):
        threads(count)
        files.append(encode_jpeg(Augmenter(large, image_id="a").apply(name, []).rgb))
    assert files[0] == files[1]


def test_a_box_of_which_little_remains_is_dropped() -> None:
    shift = np.array([[1.0, 0, 100], [0, 1, 0], [0, 0, 1]])
    assert operations.transform_box([0, 0, 20, 20], shift, 128, 96) == [100, 0, 120, 20]
    assert operations.transform_box([20, 0, 60, 20], shift, 128, 96) is None
    assert operations.transform_box([60, 0, 80, 20], shift, 128, 96) is None


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
    assert operations.transform_box(box, IDENTITY, 128, 96) == pytest.approx(box, abs=0.051)


@given(BOXES, ANY_MATRIX)
def test_for_any_matrix_a_box_is_inside_the_frame_or_dropped(box: list[float], matrix: Matrix) -> None:
    transformed = operations.transform_box(box, matrix, 128, 96)
    if transformed is not None:
        x1, y1, x2, y2 = transformed
        assert 0 <= x1 <= x2 <= 128
        assert 0 <= y1 <= y2 <= 96


@given(BOXES, st.floats(-130, 130), st.floats(-100, 100))
def test_a_box_is_kept_exactly_when_enough_of_it_remains(box: list[float], dx: float, dy: float) -> None:
    x1, y1, x2, y2 = box
    width = max(0.0, min(128, x2 + dx) - max(0, x1 + dx))
    height = max(0.0, min(96, y2 + dy) - max(0, y1 + dy))
    fraction = width * height / ((x2 - x1) * (y2 - y1))
    assume(abs(fraction - operations.MIN_VISIBLE_FRACTION) > 1e-6)
    transformed = operations.transform_box(box, np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]]), 128, 96)
    assert (transformed is not None) == (fraction > operations.MIN_VISIBLE_FRACTION)


@given(BOXES, AFFINE, st.integers(1, 128), st.integers(1, 96))
def test_a_larger_frame_keeps_every_box_that_a_smaller_frame_keeps(
    box: list[float], matrix: Matrix, width: int, height: int
) -> None:
    small, large = operations.transform_box(box, matrix, width, height), operations.transform_box(box, matrix, 128, 96)
    if small is not None:
        assert large is not None
        assert large[:2] == small[:2]
        assert large[2] >= small[2]
        assert large[3] >= small[3]


@pytest.mark.parametrize("bottom", [[0, 0, 0], [0, 0, -1], [-0.02, 0, 1], [-0.1, 0, 1]])
def test_a_box_that_reaches_the_horizon_is_dropped(bottom: list[float]) -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], bottom], np.float64)
    assert operations.transform_box([10, 10, 50, 50], matrix, 128, 96) is None


def test_a_box_in_front_of_the_horizon_is_projected() -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0.01, 0, 1]])
    assert operations.transform_box([0, 0, 100, 60], matrix, 128, 96) == [0, 0, 50, 60]


def test_a_finished_image_keeps_no_pixels_in_memory() -> None:
    result = image_steps.finish(PreparedImage("0" * 36, np.zeros((48, 64, 3), np.uint8), {}), [], ["rotate"], "cpu")
    assert result.files.keys() == {"boxes", "rotate"}
    assert result.rgb.size == 0
    assert result.rgb.base is None
