"""Both backends of every augmentation match the counterpart in torchvision or Pillow with the reported parameters."""

import io
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from shared.augmentations import AUGMENTATIONS
from tests.support.paths import SAMPLES
from tests.unit.worker.vision.augment.pixel_backends import BACKENDS
from worker.vision import imaging
from worker.vision.augment import operations
from worker.vision.augment.operations import Transform

RGB: Final = imaging.thumbnail(
    imaging.decode((SAMPLES / "carton-02a.jpg").read_bytes(), max_pixels=50_000_000).rgb, 640
)
HEIGHT, WIDTH = RGB.shape[:2]
INSIDE: Final = np.s_[HEIGHT // 7 : -HEIGHT // 7, WIDTH // 7 : -WIDTH // 7]
"""Without the border, into which an operation may move pixels from outside; libraries fill those differently."""
BOXES: Final[list[list[float]]] = [
    [250.0, 180, 390, 300],
    [150, 100, 260, 380],
    [20, 30, 200, 220],
    [400, 260, 630, 470],
]
IMAGES: Final = ("a", "b", "c")

Params = dict[str, Any]
Counterpart = Callable[[Tensor, Params], Any]


def rotated(x: Tensor, p: Params) -> Any:
    return tv.rotate(x, p["degrees"], InterpolationMode.BILINEAR)


def cropped(x: Tensor, p: Params) -> Any:
    return tv.resized_crop(x, p["y"], p["x"], p["height"], p["width"], [HEIGHT, WIDTH])


def perspective(x: Tensor, p: Params) -> Any:
    corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]])
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * (WIDTH, HEIGHT)
    return tv.perspective(
        x, corners.tolist(), (corners + np.array(p["shifts"]) * inwards).tolist(), InterpolationMode.BILINEAR
    )


def sheared(x: Tensor, p: Params) -> Any:
    degrees = -math.degrees(math.atan(p["factor"]))
    return tv.affine(x, 0, [0, 0], 1, [degrees, 0], InterpolationMode.BILINEAR)


def jittered(x: Tensor, p: Params) -> Any:
    x = tv.adjust_contrast(tv.adjust_brightness(x, p["brightness"]), p["contrast"])
    return tv.adjust_hue(tv.adjust_saturation(x, p["saturation"]), p["hue"])


def blurred(x: Tensor, p: Params) -> Any:
    side = 2 * math.ceil(4 * p["sigma"]) + 1
    return tv.gaussian_blur(x, [side, side], [p["sigma"], p["sigma"]])


def motion_blurred(x: Tensor, p: Params) -> Tensor:
    """Convolve with a line of ``length`` pixels, rotated in the same direction as images."""
    length = p["length"]
    line = torch.zeros(1, length, length)
    line[0, length // 2] = 1
    line = tv.rotate(line, p["degrees"], InterpolationMode.BILINEAR)
    padded = torch.nn.functional.pad(x[None].float(), [length // 2] * 4, mode="reflect")
    return torch.nn.functional.conv2d(padded, (line / line.sum()).expand(3, 1, length, length), groups=3)[0]


def equalized(x: Tensor, _p: Params) -> Any:
    return tv.pil_to_tensor(ImageOps.equalize(tv.to_pil_image(x)))


def covered(x: Tensor, p: Params) -> Any:
    for x1, y1, x2, y2 in p["holes"]:
        x = tv.erase(x, y1, x1, y2 - y1, x2 - x1, torch.tensor(128, dtype=torch.uint8))
    return x


def compressed(x: Tensor, p: Params) -> Any:
    buffer = io.BytesIO()
    tv.to_pil_image(x).save(buffer, "JPEG", quality=p["quality"])
    return tv.pil_to_tensor(Image.open(buffer))


GEOMETRIC: Final[dict[str, Counterpart]] = {
    "horizontal_flip": lambda x, _: tv.horizontal_flip(x),
    "rotate": rotated,
    "random_crop": cropped,
    "perspective": perspective,
    "shear": sheared,
}
COUNTERPARTS: Final[dict[str, tuple[Counterpart, float, float]]] = {
    # The counterpart, and the tolerances: mean and 99th percentile of the absolute difference of a channel.
    "horizontal_flip": (GEOMETRIC["horizontal_flip"], 0, 0),
    "rotate": (rotated, 0.05, 1),
    "random_crop": (cropped, 0.25, 1),
    "perspective": (perspective, 0.05, 1),
    "shear": (sheared, 0.05, 1),
    "color_jitter": (jittered, 2.5, 8),  # hue and saturation are bytes in OpenCV, but not in torchvision
    "gaussian_blur": (blurred, 0.1, 1),
    "motion_blur": (motion_blurred, 0.3, 1),
    "grayscale": (lambda x, _: tv.rgb_to_grayscale(x, 3), 0.6, 1),  # torchvision does not round
    "equalize": (equalized, 0, 0),
    "cutout": (covered, 0, 0),
    "jpeg_artifacts": (compressed, 0.3, 7),  # simplejpeg averages chroma slightly differently
}
NOISY: Final = ("noise", "low_light")
BETWEEN: Final[dict[str, tuple[float, float]]] = {
    # Tolerances between the two backends, borders included: as above.
    "horizontal_flip": (0, 0),
    "rotate": (0.05, 1),
    "random_crop": (0.15, 1),
    "perspective": (0.05, 1),
    "shear": (0.05, 1),
    "color_jitter": (2.5, 8),  # hue and saturation are bytes in OpenCV only
    "gaussian_blur": (0.1, 1),
    "motion_blur": (0.05, 1),
    "grayscale": (0.05, 1),
    "equalize": (0, 0),
    "cutout": (0, 0),
    "jpeg_artifacts": (0, 0),
}


def sample_transform(name: str, image_id: str) -> Transform:
    return operations.sample_transform(name, HEIGHT, WIDTH, image_id=image_id)


def as_tensor(rgb: imaging.Rgb) -> Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1)


def difference(augmented: imaging.Rgb, expected: Tensor) -> NDArray[np.float64]:
    """Return the absolute difference of the channels inside, 0 to 255."""
    difference: NDArray[np.float64] = np.abs(augmented.astype(np.float64) - expected.permute(1, 2, 0).numpy())[INSIDE]
    return difference


def test_every_operation_has_a_counterpart() -> None:
    assert {*COUNTERPARTS, *NOISY} == set(AUGMENTATIONS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("image_id", IMAGES)
@pytest.mark.parametrize("name", COUNTERPARTS)
def test_pixels_match_the_counterpart(name: str, image_id: str, backend: str) -> None:
    transform = sample_transform(name, image_id)
    counterpart, mean, percentile = COUNTERPARTS[name]
    error = difference(BACKENDS[backend](RGB)(transform), counterpart(as_tensor(RGB), transform.params))
    assert error.mean() <= mean
    assert np.percentile(error, 99) <= percentile


@pytest.mark.parametrize("image_id", IMAGES)
@pytest.mark.parametrize("name", BETWEEN)
def test_both_backends_give_the_same_image_borders_included(name: str, image_id: str) -> None:
    by_opencv, by_torch = (BACKENDS[backend](RGB)(sample_transform(name, image_id)).astype(int) for backend in ("opencv", "torch"))
    mean, percentile = BETWEEN[name]
    error = np.abs(by_opencv - by_torch)
    assert error.mean() <= mean
    assert np.percentile(error, 99) <= percentile


@pytest.mark.parametrize("image_id", IMAGES)
@pytest.mark.parametrize("name", GEOMETRIC)
def test_boxes_match_torchvision_within_two_pixels(name: str, image_id: str) -> None:
    transform = sample_transform(name, image_id)
    bounding_boxes = tv_tensors.BoundingBoxes(torch.tensor(BOXES), format="XYXY", canvas_size=(HEIGHT, WIDTH))
    expected = GEOMETRIC[name](bounding_boxes, transform.params)
    boxes = transform.transform_boxes(BOXES)
    assert {0, 1} <= {index for index, _ in boxes}
    for index, box in boxes:
        assert np.abs(np.array(box) - expected[index].numpy()).max() <= 2


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name not in GEOMETRIC])
def test_an_operation_that_moves_no_pixel_moves_no_box(name: str) -> None:
    assert sample_transform(name, "a").transform_boxes(BOXES) == list(enumerate(BOXES))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("image_id", IMAGES)
@pytest.mark.parametrize("name", NOISY)
def test_the_noise_has_the_statistics_of_torchvisions(name: str, image_id: str, backend: str) -> None:
    """The image without noise is torchvision's.

    The noise is white, has the reported sigma, and is clipped as in torchvision.
    """
    transform = sample_transform(name, image_id)
    noisy, sigma = BACKENDS[backend](RGB)(transform), transform.params["sigma"]
    torch.manual_seed(1)
    clean = tv.adjust_brightness(as_tensor(RGB).float() / 255, transform.params.get("gain", 1.0))
    expected = (tv.gaussian_noise(clean, 0, sigma / 255) - clean).numpy() * 255
    noise = noisy.transpose(2, 0, 1) - clean.numpy() * 255
    assert abs(noise.mean() - expected.mean()) <= 0.1
    assert noise.std() == pytest.approx(expected.std(), rel=0.02)
    unclipped = (clean.numpy() * 255 > 5 * sigma) & (clean.numpy() * 255 < 255 - 5 * sigma)
    assert abs(noise[unclipped].mean()) <= 0.1
    assert noise[unclipped].std() == pytest.approx(sigma, rel=0.02)
    for other in (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, 1, 2)):
        assert abs(np.corrcoef(noise[unclipped], other[unclipped])[0, 1]) <= 0.02
