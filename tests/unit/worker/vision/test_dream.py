"""DeepDream: determinism, effect of strength and layer, structure instead of noise, all networks and image sizes."""

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from shared.variants import DREAM_LAYERS
from tests.support.paths import SAMPLES
from worker.vision import dream, imaging
from worker.vision.detection import model_registry
from worker.vision.detection.model_registry import ModelUnusable
from worker.vision.dream import Dreamer
from worker.vision.imaging import Rgb

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dreamer() -> Dreamer:
    return Dreamer(device="cpu")


@pytest.fixture(scope="module")
def image() -> Rgb:
    """A small image: the time of a step is proportional to the number of pixels."""
    rgb = imaging.decode((SAMPLES / "shelf-01.jpg").read_bytes(), max_pixels=50_000_000).rgb
    return imaging.thumbnail(rgb, 160)


def change(result: Rgb, rgb: Rgb) -> float:
    return float(np.abs(result.astype(int) - rgb).mean())


def activation(dreamer: Dreamer, rgb: Rgb, layer: int) -> float:
    """Return the mean squared activation of the layer, which DeepDream increases."""
    batch = torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return float(dreamer._maps((batch - dreamer._mean) / dreamer._std, layer).square().mean())


@pytest.mark.parametrize("layer", DREAM_LAYERS)
def test_deepdream_increases_the_activation_of_the_layer(dreamer: Dreamer, image: Rgb, layer: int) -> None:
    result = dreamer.dream(image, layer, 0.5)
    assert result.shape == image.shape
    assert result.flags.c_contiguous
    assert activation(dreamer, result, layer) > 1.5 * activation(dreamer, image, layer)


@pytest.mark.parametrize("layer", [2, 4])
def test_the_change_grows_with_the_strength_and_strength_zero_changes_nothing(dreamer: Dreamer, image: Rgb, layer: int) -> None:
    results = [dreamer.dream(image, layer, strength) for strength in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert np.array_equal(results[0], image)
    changes = [change(result, image) for result in results]
    assert all(more > 1.2 * less for less, more in itertools.pairwise(changes[1:]))
    assert 8 < changes[-1] < 60


def test_the_change_is_structure_and_not_noise_and_keeps_brightness_and_contrast(dreamer: Dreamer, image: Rgb) -> None:
    result = dreamer.dream(image, 4, 0.75)
    assert abs(float(result.mean()) - float(image.mean())) < 10
    assert result.std() > 0.9 * image.std()
    difference = result.astype(np.float32) - image
    assert cv2.GaussianBlur(difference, (0, 0), 1.5).std() > 0.5 * difference.std()  # for noise it would be a fifth


def test_the_same_image_gives_the_same_bytes(dreamer: Dreamer, image: Rgb) -> None:
    first = dreamer.dream(image, 5, 0.5)
    assert np.array_equal(first, dreamer.dream(image.copy(), 5, 0.5))
    assert np.array_equal(first, Dreamer(device="cpu").dream(image, 5, 0.5))
    assert not np.array_equal(first, dreamer.dream(image, 4, 0.5))


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (64, 64), (63, 200)])
def test_deepdream_works_for_an_image_of_any_size(dreamer: Dreamer, size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    result = dreamer.dream(rgb, 5, 0.5)
    assert result.shape == imaging.thumbnail(rgb, 700).shape
    assert result.dtype == np.uint8


@pytest.mark.parametrize("value", [0, 90, 255])
def test_the_result_of_a_uniform_image_is_finite(dreamer: Dreamer, value: int) -> None:
    flat = np.full((100, 120, 3), value, np.uint8)
    for layer in DREAM_LAYERS:
        assert abs(float(dreamer.dream(flat, layer, 1.0).mean()) - value) < 80


@pytest.mark.parametrize(("layer", "strength"), [(0, 0.5), (6, 0.5), (3, -0.1), (3, 1.01), (3, float("nan"))])
def test_other_layers_and_strengths_are_rejected(dreamer: Dreamer, image: Rgb, layer: int, strength: float) -> None:
    with pytest.raises(ValueError, match=str(layer)):
        dreamer.dream(image, layer, strength)


def checkpoint(folder: Path, architecture: str) -> str:
    """Write a detector of two labels with the same random weights every time; return its path."""
    torch.manual_seed(1)
    weights = model_registry.build_model(architecture, 2, 128).state_dict()
    path = folder / f"{architecture}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    path.with_suffix(".json").write_text(json.dumps({"name": architecture, "version": "7", "architecture": architecture, "labels": ["a", "b"]}))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        "ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn",
        "retinanet_resnet50_fpn", "fcos_resnet50_fpn",
    ],
)  # fmt: skip
def test_deepdream_works_with_every_kind_of_torchvision_detector(tmp_path: Path, image: Rgb, architecture: str) -> None:
    dreamer = Dreamer(checkpoint(tmp_path, architecture), device="cpu")
    assert (dreamer.info["name"], dreamer.info["version"]) == (architecture, "7")
    small = imaging.thumbnail(image, 96)
    results = [dreamer.dream(small, layer, 0.5) for layer in DREAM_LAYERS]
    for layer, result in zip(DREAM_LAYERS, results, strict=True):
        assert change(result, small) > 2
        assert activation(dreamer, result, layer) > activation(dreamer, small, layer)
    assert len({result.tobytes() for result in results}) == len(DREAM_LAYERS)


def test_layers_are_the_ends_of_the_networks_blocks() -> None:
    parts: Any = model_registry.build_model("fasterrcnn_resnet50_fpn", 2, 128)
    assert dream._find_layers(parts.backbone.body) == {1: "relu", 2: "layer1", 3: "layer2", 4: "layer3", 5: "layer4"}


def test_a_gradient_that_is_not_finite_changes_nothing(image: Rgb) -> None:
    broken = Dreamer(device="cpu")
    with torch.no_grad():
        next(broken._body.parameters()).fill_(float("inf"))
    assert np.array_equal(broken.dream(image, 4, 1.0), image)


def test_the_cpu_takes_over_when_the_memory_of_a_gpu_does_not_suffice(dreamer: Dreamer, image: Rgb) -> None:
    class SmallMemory(Dreamer):
        """A model on a GPU whose memory suffices for nothing."""

        def _dream(self, rgb: Rgb, layer: int, strength: float, device: str) -> Rgb:
            if device != "cpu":
                raise torch.OutOfMemoryError("out of memory")
            return super()._dream(rgb, layer, strength, device)

    dreamer_on_gpu = SmallMemory(device="cpu")
    dreamer_on_gpu._device = "cuda"
    assert np.array_equal(dreamer_on_gpu.dream(image, 3, 0.5), dreamer.dream(image, 3, 0.5))


def test_a_missing_gpu_is_reported() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelUnusable, match="no GPU"):
        Dreamer(device="cuda")
