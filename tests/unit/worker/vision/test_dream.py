"""Dreams: the same each time, further from the picture the stronger they are, in shapes and not in noise; of any network, any size."""

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from shared.inspections.recipes import DREAM_LAYERS
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
def picture() -> Rgb:
    """Give a small one: each step costs its pixels."""
    rgb = imaging.decode((SAMPLES / "shelf-01.jpg").read_bytes(), max_pixels=50_000_000).rgb
    return imaging.thumbnail(rgb, 160)


def change(made: Rgb, rgb: Rgb) -> float:
    return float(np.abs(made.astype(int) - rgb).mean())


def excitement(dreamer: Dreamer, rgb: Rgb, layer: int) -> float:
    """Measure what a dream is to raise."""
    batch = torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return float(dreamer._maps((batch - dreamer._mean) / dreamer._std, layer).square().mean())


@pytest.mark.parametrize("layer", DREAM_LAYERS)
def test_a_layer_is_excited_more_by_what_is_dreamt_of_it(dreamer: Dreamer, picture: Rgb, layer: int) -> None:
    made = dreamer.dream(picture, layer, 0.5)
    assert made.shape == picture.shape
    assert made.flags.c_contiguous
    assert excitement(dreamer, made, layer) > 1.5 * excitement(dreamer, picture, layer)


@pytest.mark.parametrize("layer", [2, 4])
def test_the_stronger_the_further_from_the_picture_and_nothing_is_the_picture_itself(dreamer: Dreamer, picture: Rgb, layer: int) -> None:
    made = [dreamer.dream(picture, layer, strength) for strength in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert np.array_equal(made[0], picture)
    changes = [change(one, picture) for one in made]
    assert all(more > 1.2 * less for less, more in itertools.pairwise(changes[1:]))
    assert 8 < changes[-1] < 60


def test_what_grows_are_shapes_the_picture_is_neither_washed_out_nor_noise(dreamer: Dreamer, picture: Rgb) -> None:
    made = dreamer.dream(picture, 4, 0.75)
    assert abs(float(made.mean()) - float(picture.mean())) < 10
    assert made.std() > 0.9 * picture.std()
    grown = made.astype(np.float32) - picture
    assert cv2.GaussianBlur(grown, (0, 0), 1.5).std() > 0.5 * grown.std()  # of noise a fifth would be left


def test_the_same_picture_gives_the_same_bytes(dreamer: Dreamer, picture: Rgb) -> None:
    first = dreamer.dream(picture, 5, 0.5)
    assert np.array_equal(first, dreamer.dream(picture.copy(), 5, 0.5))
    assert np.array_equal(first, Dreamer(device="cpu").dream(picture, 5, 0.5))
    assert not np.array_equal(first, dreamer.dream(picture, 4, 0.5))


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (64, 64), (63, 200)])
def test_a_picture_of_any_size_is_dreamt_about(dreamer: Dreamer, size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    made = dreamer.dream(rgb, 5, 0.5)
    assert made.shape == imaging.thumbnail(rgb, 700).shape
    assert made.dtype == np.uint8


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_flat_picture_stays_finite(dreamer: Dreamer, value: int) -> None:
    flat = np.full((100, 120, 3), value, np.uint8)
    for layer in DREAM_LAYERS:
        assert abs(float(dreamer.dream(flat, layer, 1.0).mean()) - value) < 80


@pytest.mark.parametrize(("layer", "strength"), [(0, 0.5), (6, 0.5), (3, -0.1), (3, 1.01), (3, float("nan"))])
def test_other_layers_and_strengths_are_refused(dreamer: Dreamer, picture: Rgb, layer: int, strength: float) -> None:
    with pytest.raises(ValueError, match=str(layer)):
        dreamer.dream(picture, layer, strength)


def checkpoint(folder: Path, architecture: str) -> str:
    """Write a detector of two labels with random weights, always the same."""
    torch.manual_seed(1)
    weights = model_registry.build(architecture, 2, 128).state_dict()
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
def test_any_of_torchvisions_detectors_can_dream(tmp_path: Path, picture: Rgb, architecture: str) -> None:
    mine = Dreamer(checkpoint(tmp_path, architecture), device="cpu")
    assert (mine.info["name"], mine.info["version"]) == (architecture, "7")
    small = imaging.thumbnail(picture, 96)
    made = [mine.dream(small, layer, 0.5) for layer in DREAM_LAYERS]
    for layer, one in zip(DREAM_LAYERS, made, strict=True):
        assert change(one, small) > 2
        assert excitement(mine, one, layer) > excitement(mine, small, layer)
    assert len({one.tobytes() for one in made}) == len(DREAM_LAYERS)


def test_layers_are_the_ends_of_the_networks_blocks() -> None:
    parts: Any = model_registry.build("fasterrcnn_resnet50_fpn", 2, 128)
    assert dream._layers(parts.backbone.body) == {1: "relu", 2: "layer1", 3: "layer2", 4: "layer3", 5: "layer4"}


def test_a_gradient_that_is_no_number_changes_nothing(picture: Rgb) -> None:
    broken = Dreamer(device="cpu")
    with torch.no_grad():
        next(broken._trunk.parameters()).fill_(float("inf"))
    assert np.array_equal(broken.dream(picture, 4, 1.0), picture)


def test_where_a_gpus_memory_does_not_do_the_cpu_does(dreamer: Dreamer, picture: Rgb) -> None:
    class Small(Dreamer):
        """Says that it dreams on a GPU, which has room for nothing."""

        def _dreamt(self, rgb: Rgb, layer: int, strength: float, device: str) -> Rgb:
            if device != "cpu":
                raise torch.OutOfMemoryError("no room")
            return super()._dreamt(rgb, layer, strength, device)

    small = Small(device="cpu")
    small._device = "cuda"
    assert np.array_equal(small.dream(picture, 3, 0.5), dreamer.dream(picture, 3, 0.5))


def test_a_gpu_that_is_not_there_is_said_in_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ModelUnusable, match="no GPU"):
        Dreamer(device="cuda")
