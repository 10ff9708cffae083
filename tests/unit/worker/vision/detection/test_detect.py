"""Detection: results equal to the plain torchvision call, sources of models, batches that do not fit into memory.

With ``SHELFSIGHT_PHOTOS=DIR`` the comparison uses the JPEGs below that folder instead of the project's own drawings.
"""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from tests.support.paths import SAMPLES
from worker.vision import imaging
from worker.vision.detection import detect, model_registry, runtimes
from worker.vision.detection.model_registry import ModelCard, ModelUnusable

MAX = 50_000_000
LABELS = tuple("_abcdefghij")


def sample(name: str) -> imaging.Rgb:
    return imaging.decode((SAMPLES / name).read_bytes(), max_pixels=MAX).rgb


@pytest.fixture(scope="module")
def detector() -> detect.Detector:
    return detect.load(device="cpu", precision="full")


def photos() -> list[imaging.Rgb]:
    folder = os.environ.get("SHELFSIGHT_PHOTOS")
    if folder:
        paths = sorted(Path(folder).rglob("*.jpg"))
        # At most 64, spread over all subfolders.
        found = [imaging.decode(path.read_bytes(), max_pixels=MAX).rgb for path in paths[:: len(paths) // 64 + 1]]
    else:
        found = [imaging.thumbnail(sample(path.name), 480) for path in sorted(SAMPLES.glob("*.jpg"))]
    assert len(found) >= 8
    return found


def plain(model: torch.nn.Module, images: list[imaging.Rgb]) -> list[dict[str, Tensor]]:
    """Call the model as torchvision's documentation does."""
    with torch.inference_mode():
        return list(model.eval()([torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 for rgb in images]))


def assert_same(found: list[dict[str, Any]], expected: dict[str, Tensor], labels: tuple[str, ...], threshold: float) -> None:
    """Assert a one-to-one correspondence with torchvision's detections.

    Scores within the tolerance of the threshold are excepted.
    """
    unmatched = list(found)
    for score, label, box in zip(expected["scores"].tolist(), expected["labels"].tolist(), expected["boxes"].tolist(), strict=True):
        matching = [
            detection
            for detection in unmatched
            if detection["label"] == labels[label]
            and abs(detection["score"] - score) <= 1e-2
            and np.abs(np.subtract(detection["box"], box)).max() <= 1
        ]
        if matching:
            unmatched.remove(matching[0])
        else:
            assert score < threshold + 1e-2, (score, labels[label], box)
    assert [detection for detection in unmatched if detection["score"] >= threshold + 1e-2] == []


def test_the_bundled_model_detects_the_drawn_products(detector: detect.Detector) -> None:
    labels = {found["label"] for found in detector.predict([sample("shelf-01.jpg")])[0]}
    assert {"Apple", "Orange", "Banana"} <= labels
    assert detector.predict([sample("carton-02a.jpg")])[0][0]["label"] == "Juice"
    assert len(detector.info["weights_sha256"]) == 64


def test_boxes_are_inside_the_image_and_scores_are_sorted(detector: detect.Detector) -> None:
    rgb = sample("shelf-06.jpg")
    for detections, image in zip(detector.predict([rgb, rgb[:440, :500]], threshold=0.05), (rgb, rgb[:440, :500]), strict=True):
        assert detections
        scores = [found["score"] for found in detections]
        assert scores == sorted(scores, reverse=True)
        for found in detections:
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 < x2 <= image.shape[1]
            assert 0 <= y1 < y2 <= image.shape[0]


def test_earlier_batches_do_not_affect_later_results(detector: detect.Detector) -> None:
    images = [sample(f"shelf-0{number}.jpg") for number in (1, 6, 2)]
    alone = [detector.predict([rgb])[0] for rgb in images]
    assert alone[0] != alone[1]
    for order in ([0, 1, 2], [2, 1], [1], [0, 2, 1]):  # the batch grows, shrinks and grows
        for index, detections in zip(order, detector.predict([images[index] for index in order]), strict=True):
            assert [found["label"] for found in detections] == [expected["label"] for expected in alone[index]]
            for found, expected in zip(detections, alone[index], strict=True):
                assert found["score"] == pytest.approx(expected["score"], abs=1e-3)
                assert found["box"] == pytest.approx(expected["box"], abs=0.5)


def test_full_precision_gives_the_results_of_the_plain_torchvision_call(detector: detect.Detector) -> None:
    images = photos()
    model, card = model_registry.load("grocery")
    for found, expected in zip(detector.predict(images, threshold=0.2), plain(model, images), strict=True):
        assert_same(found, expected, card.labels, 0.2)


def test_a_large_image_is_first_halved_by_area(detector: detect.Detector) -> None:
    large = sample("shelf-01.jpg")  # 1280x960 for a model of 384x384
    reduced = cv2.resize(large, (640, 480), interpolation=cv2.INTER_AREA)
    for found, expected in zip(detector.predict([large])[0], detector.predict([reduced])[0], strict=True):
        assert found["score"] == pytest.approx(expected["score"], abs=1e-3)
        assert found["box"] == pytest.approx([2 * coordinate for coordinate in expected["box"]], abs=0.5)


def amplify(model: torch.nn.Module, images: list[imaging.Rgb]) -> None:
    """Make the output of random weights vary.

    Batch norms get the statistics of the images, and the weights of the last layers are doubled.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.inference_mode():
        model([torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 for rgb in images])
    for name, last in model.named_modules():
        is_output = isinstance(last, torch.nn.Conv2d | torch.nn.Linear) and last.weight.shape[0] % len(LABELS) == 0
        if is_output and ("cls" in name or "classification" in name):
            with torch.no_grad():
                last.weight.mul_(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ssdlite320_mobilenet_v3_large", {}),
        ("fcos_resnet50_fpn", {"min_size": 128, "max_size": 256}),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", {"min_size": 128, "max_size": 256}),
    ],
)
def test_torchvisions_models_give_the_same_results_with_random_weights(name: str, options: dict[str, int]) -> None:
    """One and two stages, fixed and free input size, images of two shapes in a batch.

    Trained weights are not covered.
    """
    images = [imaging.thumbnail(sample("shelf-01.jpg"), 320), np.ascontiguousarray(imaging.thumbnail(sample("carton-01a.jpg"), 300)[:, :160])]
    torch.manual_seed(3)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(LABELS), score_thresh=0.0, **options)
    amplify(model, images)
    expected = plain(model, images)
    black = plain(model, [np.zeros_like(rgb) for rgb in images])
    ours = detect.Detector(model, ModelCard(name, "0", LABELS, 0.0, ""), device="cpu", precision="full", threads=1)
    for found, wanted, black_output in zip(ours.predict(images), expected, black, strict=True):
        assert len(found) == len(wanted["scores"]) > 20
        best = {name: values[:20] for name, values in wanted.items()}
        assert best["scores"][0] - best["scores"][-1] > 0.01
        for score, label, box in zip(best["scores"].tolist(), best["labels"].tolist(), best["boxes"].tolist(), strict=True):
            assert any(
                detection["label"] == LABELS[label]
                and abs(detection["score"] - score) <= 1e-2
                and np.abs(np.subtract(detection["box"], box)).max() <= 1
                for detection in found
            ), (score, label, box)
        assert (black_output["scores"][:20] - best["scores"]).abs().max() > 0.02


@pytest.mark.slow
def test_half_precision_is_chosen_only_if_the_model_card_states_a_small_loss(tmp_path: Path) -> None:
    if not runtimes.supports_half("cpu"):
        pytest.skip("this CPU has no bfloat16")
    for loss, precision in ((None, "full"), (0.006, "full"), (0.004, "half")):
        weights = checkpoint(tmp_path, half_loss=loss)
        assert detect.load(str(weights), device="cpu").precision == precision
    full, half = (detect.load(device="cpu", precision=precision).predict([sample("shelf-01.jpg")])[0] for precision in ("full", "half"))
    assert half[0]["label"] == full[0]["label"]
    assert half[0]["score"] == pytest.approx(full[0]["score"], abs=0.1)
    assert half != full


def checkpoint(folder: Path, suffix: str = ".safetensors", **fields: Any) -> Path:
    """Write a small model of three labels with random weights, and its model card; return its path."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(1)
    weights = model_registry.build_model("grocery", 3, 128).state_dict()
    path = folder / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    else:
        torch.save({"model": weights}, path)
    card = {"name": "mine", "version": "7", "labels": ["a", "b", "c"], "size": 128, "threshold": 0.01} | fields
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_users_checkpoint_is_loaded_with_its_labels(tmp_path: Path, suffix: str) -> None:
    detector = detect.load(str(checkpoint(tmp_path, suffix)), device="cpu")
    assert (detector.info["name"], detector.info["version"]) == ("mine", "7")
    detections = detector.predict([sample("shelf-01.jpg")], threshold=0.0)[0]
    assert {found["label"] for found in detections} <= {"a", "b", "c"}
    assert detections


class Malicious:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


def test_an_unusable_model_is_reported_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = checkpoint(tmp_path)
    torch.save(Malicious(), tmp_path / "malicious.pt")
    (tmp_path / "malicious.json").write_text(good.with_suffix(".json").read_text())
    other = checkpoint(tmp_path, ".pt", labels=["only one"])
    without_card = tmp_path / "lonely.safetensors"
    without_card.write_bytes(good.read_bytes())
    cut, page = checkpoint(tmp_path / "cut"), checkpoint(tmp_path / "page")
    cut.write_bytes(good.read_bytes()[:1000])
    page.write_bytes(b"<!DOCTYPE html>\n<title>404</title>")
    cases = {
        str(cut): "does not hold the weights",
        str(page): "does not hold the weights",
        "resnet50": "Unknown model 'resnet50'",
        str(tmp_path / "missing.pt"): "cannot be read",
        str(without_card): "lonely.json",
        str(tmp_path / "malicious.pt"): "does not hold the weights",
        str(other): "does not hold the weights",
    }
    for source, sentence in cases.items():
        with pytest.raises(ModelUnusable, match=sentence):
            model_registry.load(source)
    assert not (tmp_path / "executed").exists()
    good.with_suffix(".json").write_text('{"labels": 3}')
    with pytest.raises(ModelUnusable, match="not a valid model card"):
        model_registry.load(str(good))


def test_torchvisions_weights_come_from_its_cache_and_the_error_names_the_path_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ssdlite320_mobilenet_v3_large"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ModelUnusable, match=str(tmp_path)):
        model_registry.load(name)
    file = tmp_path / "hub" / "checkpoints" / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torchvision.models.get_model(name, weights=None, weights_backbone=None).state_dict(), file)
    _, card = model_registry.load(name)
    assert card.labels[:2] == ("__background__", "person")
    assert card.version.endswith("COCO_V1")


@pytest.mark.slow
def test_a_batch_that_does_not_fit_into_memory_is_halved_and_an_image_that_does_not_goes_to_the_fallback(detector: detect.Detector) -> None:
    images = [imaging.thumbnail(sample(f"shelf-0{n}.jpg"), 300 + n) for n in range(1, 8)]
    expected = detector.predict(images)

    class SmallMemory(detect.Detector):
        """A device whose memory holds two images, and none wider than 306 pixels."""

        def _forward(self, images: list[imaging.Rgb]) -> list[dict[str, Tensor]]:
            if len(images) > 2 or max(rgb.shape[1] for rgb in images) > 306:
                raise torch.OutOfMemoryError("out of memory")
            return super()._forward(images)

    created = []

    def fallback() -> detect.Detector:
        created.append(True)
        return detector

    small = SmallMemory(*model_registry.load("grocery"), device="cpu", precision="full", threads=1, fallback=fallback)
    assert small.predict(images) == expected
    assert len(created) == 1
    without_fallback = SmallMemory(*model_registry.load("grocery"), device="cpu", precision="full", threads=1)
    with pytest.raises(torch.OutOfMemoryError):
        without_fallback.predict(images)
