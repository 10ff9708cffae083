"""Tests that need a GPU.

Results match those of the CPU, are the same every time, and the CPU continues when the GPU's memory does not suffice.
They need only torch, torchvision, OpenCV, NumPy and pytest, run without this project's pytest settings:

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
NOISY: Final = {"noise", "low_light"}
EXACT: Final = {"horizontal_flip", "equalize", "cutout", "jpeg_artifacts"}


def sample(name: str) -> Rgb:
    return imaging.decode((SAMPLES / name).read_bytes(), max_pixels=50_000_000).rgb


@pytest.fixture(scope="module")
def rgb() -> Rgb:
    return sample("carton-02a.jpg")


def augment(rgb: Rgb, name: str, image_id: str, device: str) -> Rgb:
    transform = operations.sample_transform(name, *rgb.shape[:2], image_id=image_id)
    backend = pixels_torch.TorchBackend(rgb, device)
    # Without the fallback to OpenCV.
    return backend._apply(transform) if name in pixels_torch.OPERATIONS else backend(transform)


@pytest.mark.parametrize("image_id", IMAGES)
@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name not in NOISY])
def test_pixels_match_those_of_the_cpu(rgb: Rgb, name: str, image_id: str) -> None:
    error = np.abs(augment(rgb, name, image_id, "cuda").astype(int) - augment(rgb, name, image_id, "cpu"))
    if name in EXACT:
        assert error.max() == 0
    assert error.mean() <= 0.1
    assert np.percentile(error, 99) <= 1


@pytest.mark.parametrize("image_id", IMAGES)
@pytest.mark.parametrize("name", sorted(NOISY))
def test_the_noise_has_the_statistics_of_the_cpus(name: str, image_id: str) -> None:
    grey = np.full((600, 800, 3), 128, np.uint8)
    transform = operations.sample_transform(name, 600, 800, image_id=image_id)
    noise = augment(grey, name, image_id, "cuda") - 128.0 * transform.params.get("gain", 1.0)
    assert abs(noise.mean()) <= 0.1
    assert noise.std() == pytest.approx(transform.params["sigma"], rel=0.02)
    for other in (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, 1, 2)):
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) <= 0.02


@pytest.mark.parametrize("name", pixels_torch.OPERATIONS)
def test_the_same_transform_gives_the_same_bytes_and_the_image_is_not_modified(rgb: Rgb, name: str) -> None:
    image = pixels_torch.to_tensor(rgb, "cuda")
    transform = operations.sample_transform(name, *rgb.shape[:2], image_id="a")
    first = pixels_torch.apply_transform(image, transform)
    assert (first.dtype, first.shape, first.device) == (torch.uint8, image.shape, image.device)
    for other in pixels_torch.OPERATIONS:
        pixels_torch.apply_transform(image, operations.sample_transform(other, *rgb.shape[:2], image_id="b"))
    assert torch.equal(first, pixels_torch.apply_transform(image, transform))
    assert np.array_equal(pixels_torch.to_rgb(image), rgb)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_of_any_size_is_augmented(name: str, size: tuple[int, int]) -> None:
    small = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    for image_id in IMAGES:
        augmented = augment(small, name, image_id, "cuda")
        assert augmented.shape == small.shape
        assert augmented.dtype == np.uint8
        if name not in NOISY:
            assert np.abs(augmented.astype(int) - augment(small, name, image_id, "cpu")).mean() <= 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_parameters_and_boxes_equal_those_of_the_cpu(rgb: Rgb, name: str) -> None:
    boxes = [[250.0, 180, 390, 300], [20.0, 30, 200, 220], [1000.0, 700, 1280, 960]]
    on_cuda, on_cpu = (Augmenter(rgb, image_id="a", device=device).apply(name, boxes) for device in ("cuda", "cpu"))
    assert (on_cuda.params, on_cuda.boxes) == (on_cpu.params, on_cpu.boxes)
    assert on_cuda.rgb.shape == on_cpu.rgb.shape


@pytest.fixture
def _little_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("_little_memory")
def test_opencv_continues_when_memory_does_not_suffice() -> None:
    large = np.random.default_rng(4).integers(0, 256, (3000, 4000, 3), np.uint8)
    transform = operations.sample_transform("rotate", 3000, 4000, image_id="a")
    with pytest.raises(torch.OutOfMemoryError):
        pixels_torch.TorchBackend(large, "cuda")._apply(transform)
    found = Augmenter(large, image_id="a", device="cuda").apply("rotate", [])
    assert np.array_equal(found.rgb, pixels_opencv.apply_transform(large, transform))


@pytest.fixture(scope="module")
def cpu_detector() -> detect.Detector:
    return detect.load(device="cpu", precision="full")


def matches(found: dict[str, Any], other: dict[str, Any], score: float, pixels: float) -> bool:
    is_near = abs(found["score"] - other["score"]) <= score and np.abs(np.subtract(found["box"], other["box"])).max() <= pixels
    return bool(is_near and found["label"] == other["label"])


@pytest.mark.parametrize(("precision", "score", "pixels"), [("full", 0.01, 1.0), ("half", 0.05, 8.0)])
def test_detections_match_those_of_the_cpu(cpu_detector: detect.Detector, precision: Any, score: float, pixels: float) -> None:
    """A one-to-one correspondence, except for scores within the tolerance of the threshold."""
    cuda_detector = detect.load(device="cuda", precision=precision)
    assert (cuda_detector.device, cuda_detector.precision) == ("cuda", precision)
    images = [sample(name) for name in NAMES]
    threshold = 0.3
    by_cuda, by_cpu = (detector.predict(images, threshold=threshold - score) for detector in (cuda_detector, cpu_detector))
    for on_cuda, on_cpu in zip(by_cuda, by_cpu, strict=True):
        for detections, others in ((on_cuda, on_cpu), (on_cpu, on_cuda)):
            for found in detections:
                assert found["score"] < threshold or any(matches(found, other, score, pixels) for other in others), found


def test_the_detectors_network_is_on_the_gpu_with_channels_last() -> None:
    for precision, dtype in (("full", torch.float32), ("half", torch.float16)):
        model: Any = detect.load(device="cuda", precision=precision)._model  # type: ignore[arg-type]
        network = model.backbone._runtime._network
        weights = [module.weight for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
        assert weights
        assert {(weight.device.type, weight.dtype) for weight in weights} == {("cuda", dtype)}
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_deepdream_on_a_gpu_resembles_that_of_a_cpu() -> None:
    """Each step depends on the one before, so rounding differences grow.

    The amount of change is the same, the details are not.
    """
    small = imaging.thumbnail(sample("shelf-01.jpg"), 160)
    on_cuda, on_cpu = Dreamer(device="cuda"), Dreamer(device="cpu")
    assert np.array_equal(on_cuda.dream(small, 3, 0.0), small)
    for layer in (2, 4):
        by_cuda, by_cpu = (dreamer.dream(small, layer, 0.5).astype(int) - small for dreamer in (on_cuda, on_cpu))
        assert np.abs(by_cuda).mean() == pytest.approx(np.abs(by_cpu).mean(), rel=0.1)
        assert np.corrcoef(by_cuda.ravel(), by_cpu.ravel())[0, 1] > 0.8
