"""What only a GPU can show: it answers as the CPU does, each time the same, and where its memory ends the CPU goes on.

A GPU machine needs no more than torch, torchvision, OpenCV, NumPy and pytest for it, and then none of this project's settings of pytest:

    PYTHONPATH=. python -m pytest -c /dev/null --rootdir=. --noconftest tests/unit/worker/vision/test_cuda.py
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pytest
import torch

from shared.augmentations import AUGMENTATIONS
from tests.support.paths import SAMPLES
from worker.vision import imaging
from worker.vision.augment import operations, pixels_opencv, pixels_torch
from worker.vision.augment.augmenter import Augmenter
from worker.vision.detection import detect
from worker.vision.dream import Dreamer
from worker.vision.imaging import Rgb

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use here")

NAMES: Final = sorted(path.name for path in SAMPLES.glob("*.jpg"))
SIZES: Final = [(1, 1), (1, 90), (90, 1), (2, 2), (3, 90), (90, 3)]
IMAGES: Final = ("a", "b", "c")
GRAINY: Final = {"noise", "low_light"}
EXACT: Final = {"horizontal_flip", "equalize", "cutout", "jpeg_artifacts"}


def sample(name: str) -> Rgb:
    return imaging.decode((SAMPLES / name).read_bytes(), max_pixels=50_000_000).rgb


@pytest.fixture(scope="module")
def rgb() -> Rgb:
    return sample("carton-02a.jpg")


def made(rgb: Rgb, name: str, image_id: str, device: str) -> Rgb:
    plan = operations.draw(name, *rgb.shape[:2], image_id=image_id)
    pixels = pixels_torch.Pixels(rgb, device)
    return pixels._made(plan) if name in pixels_torch.OPERATIONS else pixels(plan)  # no memory that ends is passed over


@pytest.mark.parametrize("image_id", IMAGES)
@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name not in GRAINY])
def test_pixels_are_those_of_the_cpu(rgb: Rgb, name: str, image_id: str) -> None:
    far = np.abs(made(rgb, name, image_id, "cuda").astype(int) - made(rgb, name, image_id, "cpu"))
    if name in EXACT:
        assert far.max() == 0
    assert far.mean() <= 0.1
    assert np.percentile(far, 99) <= 1


@pytest.mark.parametrize("image_id", IMAGES)
@pytest.mark.parametrize("name", sorted(GRAINY))
def test_grain_is_that_of_the_cpu_by_its_statistics(name: str, image_id: str) -> None:
    grey = np.full((600, 800, 3), 128, np.uint8)
    plan = operations.draw(name, 600, 800, image_id=image_id)
    grain = made(grey, name, image_id, "cuda") - 128.0 * plan.params.get("gain", 1.0)
    assert abs(grain.mean()) <= 0.1
    assert grain.std() == pytest.approx(plan.params["sigma"], rel=0.02)
    for other in (np.roll(grain, 1, 0), np.roll(grain, 1, 1), np.roll(grain, 1, 2)):
        assert abs(np.corrcoef(grain.ravel(), other.ravel())[0, 1]) <= 0.02


@pytest.mark.parametrize("name", pixels_torch.OPERATIONS)
def test_the_same_plan_gives_the_same_bytes_and_nothing_disturbs_the_picture(rgb: Rgb, name: str) -> None:
    picture = pixels_torch.to_tensor(rgb, "cuda")
    plan = operations.draw(name, *rgb.shape[:2], image_id="a")
    first = pixels_torch.make(picture, plan)
    assert (first.dtype, first.shape, first.device) == (torch.uint8, picture.shape, picture.device)
    for other in pixels_torch.OPERATIONS:
        pixels_torch.make(picture, operations.draw(other, *rgb.shape[:2], image_id="b"))
    assert torch.equal(first, pixels_torch.make(picture, plan))
    assert np.array_equal(pixels_torch.to_rgb(picture), rgb)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_picture_of_any_size_is_augmented(name: str, size: tuple[int, int]) -> None:
    small = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    for image_id in IMAGES:
        one = made(small, name, image_id, "cuda")
        assert one.shape == small.shape
        assert one.dtype == np.uint8
        if name not in GRAINY:
            assert np.abs(one.astype(int) - made(small, name, image_id, "cpu")).mean() <= 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_parameters_and_boxes_are_those_of_the_cpu(rgb: Rgb, name: str) -> None:
    boxes = [[250.0, 180, 390, 300], [20.0, 30, 200, 220], [1000.0, 700, 1280, 960]]
    there, here = (Augmenter(rgb, image_id="a", device=device).apply(name, boxes) for device in ("cuda", "cpu"))
    assert (there.params, there.boxes) == (here.params, here.boxes)
    assert there.rgb.shape == here.rgb.shape


@pytest.fixture
def _little_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("_little_memory")
def test_where_memory_ends_opencv_goes_on() -> None:
    large = np.random.default_rng(4).integers(0, 256, (3000, 4000, 3), np.uint8)
    plan = operations.draw("rotate", 3000, 4000, image_id="a")
    with pytest.raises(torch.OutOfMemoryError):
        pixels_torch.Pixels(large, "cuda")._made(plan)
    found = Augmenter(large, image_id="a", device="cuda").apply("rotate", [])
    assert np.array_equal(found.rgb, pixels_opencv.make(large, plan))


@pytest.fixture(scope="module")
def here() -> detect.Detector:
    return detect.load(device="cpu", precision="full")


def fits(found: dict[str, Any], other: dict[str, Any], score: float, pixels: float) -> bool:
    near = abs(found["score"] - other["score"]) <= score and np.abs(np.subtract(found["box"], other["box"])).max() <= pixels
    return bool(near and found["label"] == other["label"])


@pytest.mark.parametrize(("precision", "score", "pixels"), [("full", 0.01, 1.0), ("half", 0.05, 8.0)])
def test_the_detector_finds_what_it_finds_on_a_cpu(here: detect.Detector, precision: Any, score: float, pixels: float) -> None:
    """One detection for each of the CPU's and the other way round, but for what lies within the tolerance of the threshold."""
    there = detect.load(device="cuda", precision=precision)
    assert (there.device, there.precision) == ("cuda", precision)
    pictures = [sample(name) for name in NAMES]
    least = 0.3
    for ours, theirs in zip(there.predict(pictures, threshold=least - score), here.predict(pictures, threshold=least - score), strict=True):
        for some, others in ((ours, theirs), (theirs, ours)):
            for one in some:
                assert one["score"] < least or any(fits(one, other, score, pixels) for other in others), one


def test_the_detectors_network_lies_there_with_channels_last() -> None:
    for precision, dtype in (("full", torch.float32), ("half", torch.float16)):
        model: Any = detect.load(device="cuda", precision=precision)._model  # type: ignore[arg-type]
        network = model.backbone._run._network
        weights = [one.weight for one in network.modules() if isinstance(one, torch.nn.Conv2d)]
        assert weights
        assert {(one.device.type, one.dtype) for one in weights} == {("cuda", dtype)}
        assert all(one.is_contiguous(memory_format=torch.channels_last) for one in weights)


def test_a_gpu_dreams_what_a_cpu_dreams() -> None:
    """Each step goes up a gradient, and each rests on the one before: how far a dream goes is the same, its last strokes are not."""
    small = imaging.thumbnail(sample("shelf-01.jpg"), 160)
    there, cpu = Dreamer(device="cuda"), Dreamer(device="cpu")
    assert np.array_equal(there.dream(small, 3, 0.0), small)
    for layer in (2, 4):
        ours, theirs = (one.dream(small, layer, 0.5).astype(int) - small for one in (there, cpu))
        assert np.abs(ours).mean() == pytest.approx(np.abs(theirs).mean(), rel=0.1)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.8
