"""Detection: every engine answers what the plain torchvision call answers; where models come from; what memory allows.

With ``SHELFSIGHT_PHOTOS=DIR`` the comparison takes the JPEGs below that folder instead of the project's own drawings.
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
    given = os.environ.get("SHELFSIGHT_PHOTOS")
    if given:
        paths = sorted(Path(given).rglob("*.jpg"))
        found = [imaging.decode(path.read_bytes(), max_pixels=MAX).rgb for path in paths[:: len(paths) // 64 + 1]]  # 64 at the most, of all kinds
    else:
        found = [imaging.thumbnail(sample(path.name), 480) for path in sorted(SAMPLES.glob("*.jpg"))]
    assert len(found) >= 8
    return found


def plain(model: torch.nn.Module, pictures: list[imaging.Rgb]) -> list[dict[str, Tensor]]:
    """The call as torchvision documents it."""
    with torch.inference_mode():
        return list(model.eval()([torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 for rgb in pictures]))


def assert_same(found: list[dict[str, Any]], expected: dict[str, Tensor], labels: tuple[str, ...], least: float) -> None:
    """One detection for each of torchvision's, and the other way round, but for what lies within the tolerance of ``least``."""
    left = list(found)
    for score, label, box in zip(expected["scores"].tolist(), expected["labels"].tolist(), expected["boxes"].tolist(), strict=True):
        fits = [
            one
            for one in left
            if one["label"] == labels[label] and abs(one["score"] - score) <= 1e-2 and np.abs(np.subtract(one["box"], box)).max() <= 1
        ]
        if fits:
            left.remove(fits[0])
        else:
            assert score < least + 1e-2, (score, labels[label], box)
    assert [one for one in left if one["score"] >= least + 1e-2] == []


def test_the_bundled_model_sees_what_was_drawn(detector: detect.Detector) -> None:
    labels = {found["label"] for found in detector.predict([sample("shelf-01.jpg")])[0]}
    assert {"Apple", "Orange", "Banana"} <= labels
    assert detector.predict([sample("carton-02a.jpg")])[0][0]["label"] == "Juice"
    assert len(detector.info["weights_sha256"]) == 64


def test_boxes_lie_in_the_picture_and_scores_fall(detector: detect.Detector) -> None:
    rgb = sample("shelf-06.jpg")
    for one, picture in zip(detector.predict([rgb, rgb[:440, :500]], threshold=0.05), (rgb, rgb[:440, :500]), strict=True):
        assert one
        assert [found["score"] for found in one] == sorted((found["score"] for found in one), reverse=True)
        for found in one:
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 < x2 <= picture.shape[1]
            assert 0 <= y1 < y2 <= picture.shape[0]


def test_what_was_looked_at_before_leaves_nothing_behind(detector: detect.Detector) -> None:
    pictures = [sample(f"shelf-0{number}.jpg") for number in (1, 6, 2)]
    alone = [detector.predict([one])[0] for one in pictures]
    assert alone[0] != alone[1]
    for order in ([0, 1, 2], [2, 1], [1], [0, 2, 1]):  # the batch grows, shrinks and grows
        for at, found in zip(order, detector.predict([pictures[at] for at in order]), strict=True):
            assert [one["label"] for one in found] == [one["label"] for one in alone[at]]
            for one, other in zip(found, alone[at], strict=True):
                assert one["score"] == pytest.approx(other["score"], abs=1e-3)
                assert one["box"] == pytest.approx(other["box"], abs=0.5)


def test_full_precision_answers_what_the_plain_torchvision_call_answers(detector: detect.Detector) -> None:
    pictures = photos()
    model, card = model_registry.load("grocery")
    for found, expected in zip(detector.predict(pictures, threshold=0.2), plain(model, pictures), strict=True):
        assert_same(found, expected, card.labels, 0.2)


def test_a_large_picture_is_halved_by_area_first(detector: detect.Detector) -> None:
    large = sample("shelf-01.jpg")  # 1280x960 for a model of 384x384
    reduced = cv2.resize(large, (640, 480), interpolation=cv2.INTER_AREA)
    for one, other in zip(detector.predict([large])[0], detector.predict([reduced])[0], strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
        assert one["box"] == pytest.approx([side * scale for side, scale in zip(other["box"], (2, 2, 2, 2), strict=True)], abs=0.5)


def spread(model: torch.nn.Module, pictures: list[imaging.Rgb]) -> None:
    """Give random weights something to say: norms with the pictures' own statistics, last layers that answer strongly."""
    model.eval()
    norms = [one for one in model.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for one in norms:
        one.momentum = None
        one.train()
    with torch.inference_mode():
        model([torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 for rgb in pictures])
    for name, last in model.named_modules():
        answers = isinstance(last, torch.nn.Conv2d | torch.nn.Linear) and last.weight.shape[0] % len(LABELS) == 0
        if answers and ("cls" in name or "classification" in name):
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
def test_torchvisions_builders_give_the_same_with_random_weights(name: str, options: dict[str, int]) -> None:
    """One stage and two, fixed size and free, pictures of two shapes in a batch. It says nothing of trained weights."""
    pictures = [imaging.thumbnail(sample("shelf-01.jpg"), 320), np.ascontiguousarray(imaging.thumbnail(sample("carton-01a.jpg"), 300)[:, :160])]
    torch.manual_seed(3)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(LABELS), score_thresh=0.0, **options)
    spread(model, pictures)
    expected = plain(model, pictures)
    black = plain(model, [np.zeros_like(one) for one in pictures])
    ours = detect.Detector(model, ModelCard(name, "0", LABELS, 0.0, ""), device="cpu", precision="full", threads=1)
    for found, wanted, other in zip(ours.predict(pictures), expected, black, strict=True):
        assert len(found) == len(wanted["scores"]) > 20
        best = {name: one[:20] for name, one in wanted.items()}
        assert best["scores"][0] - best["scores"][-1] > 0.01
        for score, label, box in zip(best["scores"].tolist(), best["labels"].tolist(), best["boxes"].tolist(), strict=True):
            assert any(
                one["label"] == LABELS[label] and abs(one["score"] - score) <= 1e-2 and np.abs(np.subtract(one["box"], box)).max() <= 1
                for one in found
            ), (score, label, box)
        assert (other["scores"][:20] - best["scores"]).abs().max() > 0.02


@pytest.mark.slow
def test_half_precision_is_taken_only_where_the_card_says_that_it_loses_little(tmp_path: Path) -> None:
    if not runtimes.supports_half("cpu"):
        pytest.skip("this CPU has no bfloat16")
    for loss, precision in ((None, "full"), (0.006, "full"), (0.004, "half")):
        weights = checkpoint(tmp_path, half_loss=loss)
        assert detect.load(str(weights), device="cpu").precision == precision
    full, half = (detect.load(device="cpu", precision=precision).predict([sample("shelf-01.jpg")])[0] for precision in ("full", "half"))
    assert half[0]["label"] == full[0]["label"]
    assert half[0]["score"] == pytest.approx(full[0]["score"], abs=0.1)
    assert half != full


def checkpoint(folder: Path, suffix: str = ".safetensors", **said: Any) -> Path:
    """Write a small model of three labels with random weights, and its card."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(1)
    weights = model_registry.build_model("grocery", 3, 128).state_dict()
    path = folder / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    else:
        torch.save({"model": weights}, path)
    card = {"name": "mine", "version": "7", "labels": ["a", "b", "c"], "size": 128, "threshold": 0.01} | said
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_checkpoint_of_ones_own_is_loaded_with_its_labels(tmp_path: Path, suffix: str) -> None:
    mine = detect.load(str(checkpoint(tmp_path, suffix)), device="cpu")
    assert (mine.info["name"], mine.info["version"]) == ("mine", "7")
    found = mine.predict([sample("shelf-01.jpg")], threshold=0.0)[0]
    assert {one["label"] for one in found} <= {"a", "b", "c"}
    assert found


class Evil:
    """What a pickle may do when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch evil",))


def test_what_is_no_model_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = checkpoint(tmp_path)
    torch.save(Evil(), tmp_path / "evil.pt")
    (tmp_path / "evil.json").write_text(good.with_suffix(".json").read_text())
    other = checkpoint(tmp_path, ".pt", labels=["only one"])
    lonely = tmp_path / "lonely.safetensors"
    lonely.write_bytes(good.read_bytes())
    cut, page = checkpoint(tmp_path / "cut"), checkpoint(tmp_path / "page")
    cut.write_bytes(good.read_bytes()[:1000])
    page.write_bytes(b"<!DOCTYPE html>\n<title>404</title>")
    cases = {
        str(cut): "does not hold the weights",
        str(page): "does not hold the weights",
        "resnet50": "Unknown model 'resnet50'",
        str(tmp_path / "missing.pt"): "cannot be read",
        str(lonely): "lonely.json",
        str(tmp_path / "evil.pt"): "does not hold the weights",
        str(other): "does not hold the weights",
    }
    for source, sentence in cases.items():
        with pytest.raises(ModelUnusable, match=sentence):
            model_registry.load(source)
    assert not (tmp_path / "evil").exists()
    good.with_suffix(".json").write_text('{"labels": 3}')
    with pytest.raises(ModelUnusable, match="not a valid model card"):
        model_registry.load(str(good))


def test_torchvisions_models_come_from_its_cache_and_say_where_to_put_what_cannot_be_fetched(
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
def test_a_batch_that_does_not_fit_is_halved_and_a_picture_that_does_not_is_looked_at_elsewhere(detector: detect.Detector) -> None:
    pictures = [imaging.thumbnail(sample(f"shelf-0{n}.jpg"), 300 + n) for n in range(1, 8)]
    expected = detector.predict(pictures)

    class Small(detect.Detector):
        """A device with room for two pictures, and for none that is wider than 306."""

        def _forward(self, images: list[imaging.Rgb]) -> list[dict[str, Tensor]]:
            if len(images) > 2 or max(rgb.shape[1] for rgb in images) > 306:
                raise torch.OutOfMemoryError("no room")
            return super()._forward(images)

    asked = []

    def fallback() -> detect.Detector:
        asked.append(True)
        return detector

    small = Small(*model_registry.load("grocery"), device="cpu", precision="full", threads=1, fallback=fallback)
    assert small.predict(pictures) == expected
    assert len(asked) == 1
    alone = Small(*model_registry.load("grocery"), device="cpu", precision="full", threads=1)
    with pytest.raises(torch.OutOfMemoryError):
        alone.predict(pictures)
