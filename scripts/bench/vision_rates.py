"""What a worker does to a picture, without the service: the network alone, and the whole work, on one core."""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Final

import numpy as np
import psutil
import torch
import torchvision
from torch import nn

from scripts.bench import sample_uploads
from scripts.bench.baselines.loop import whole_work
from scripts.bench.baselines.torchvision_script import Script
from scripts.bench.report import Row, Target, against
from scripts.bench.timing import interleave, median, seconds
from shared.augmentations import DEFAULT_AUGMENTATIONS
from worker.vision import barcode, imaging, quality
from worker.vision.augment.augmenter import Augmenter
from worker.vision.detection import detect, model_registry, runtimes
from worker.vision.detection.model_registry import Card

SSDLITE: Final = "ssdlite320_mobilenet_v3_large"
_CLASSES: Final = 91
_MAX_PIXELS: Final = 50_000_000
_BATCH: Final = 8
MIB: Final = 1024 * 1024


def network(*, quick: bool) -> list[Row]:
    """Measure detection alone: 8 pictures at once, on one thread, beside torch eager."""
    rows: list[Row] = []
    rounds = 5 if quick else 15
    for name, make, targets in ((SSDLITE, _ssdlite, (2.2, 4.0)), (model_registry.BUNDLED, _bundled, (None, None))):
        model, card = make()
        size = model.transform.fixed_size[0]
        small = list(np.random.default_rng(1).integers(0, 256, (_BATCH, size, size, 3), np.uint8))
        floats = [torch.from_numpy(one).permute(2, 0, 1).float() / 255 for one in small]
        subjects = {"eager": _eager(model.eval(), floats)}
        for precision in ("full", "half") if runtimes.has_half("cpu") else ("full",):
            subjects[precision] = _raw(detect.Detector(make()[0], card, device="cpu", precision=precision, threads=1), small)
        times = interleave({what: _timed(call) for what, call in subjects.items()}, rounds)
        eager = _BATCH / median(times["eager"])
        for (precision, said), least in zip((("full", "f32"), ("half", "bf16")), targets, strict=True):
            if precision in times:
                rows.append(against(f"{name}, {said}, of torch eager", _BATCH / median(times[precision]), "images/s", eager, at_least=least))
    return rows


def whole(*, quick: bool) -> list[Row]:
    """Measure the whole work on JPEGs of 1280x960, with the same model in ours and in the plain torchvision script."""
    files = [sample_uploads.jpeg(seed) for seed in range(_BATCH)]
    script = Script(_ssdlite()[0])
    lite = detect.Detector(*_ssdlite(), device="cpu", precision="full", threads=1)
    bundled = detect.load(device="cpu")
    with_lite, with_bundled = whole_work(lite), whole_work(bundled)
    subjects: dict[str, Callable[[], object]] = {
        "script": lambda: [script.work(data) for data in files[:4]],
        "lite": lambda: with_lite(files),
        "bundled": lambda: with_bundled(files),
    }
    counts = {"script": 4, "lite": _BATCH, "bundled": _BATCH}
    times = interleave({name: _timed(call) for name, call in subjects.items()}, 3 if quick else 9)
    rates = {name: counts[name] / median(taken) for name, taken in times.items()}
    rows = [
        against("whole work with ssdlite320, f32, of the torchvision script", rates["lite"], "images/s", rates["script"], at_least=5),
        against(f"the same with grocery as deployed ({bundled.precision} precision)", rates["bundled"], "images/s", rates["script"]),
    ]
    return rows + _steps(bundled, files, 5 if quick else 20)


def memory(*, quick: bool) -> list[Row]:
    """Measure the resident memory of a process of its own with the bundled model, before and after work on many pictures."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        first, after = pool.submit(_resident, 5 if quick else 25).result(timeout=600)
    name = "resident memory with torch, OpenVINO and groups of eight pictures, of that after the first group"
    return [Row(name, after, "MiB", first, after / first, Target(at_most=1.15))]


def _resident(groups: int) -> tuple[float, float]:
    process = psutil.Process()
    detector = detect.load(device="cpu")
    files = [sample_uploads.jpeg(seed) for seed in range(_BATCH)]
    work = whole_work(detector)
    work(files)
    first = process.memory_info().rss / MIB
    for _ in range(groups):
        work(files)
    return first, process.memory_info().rss / MIB


def _steps(detector: detect.Detector, files: list[bytes], rounds: int) -> list[Row]:
    """Tell how the time of the whole work divides."""
    spent: dict[str, float] = {}

    def timed(step: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments, **named)
        spent[step] = spent.get(step, 0.0) + time.perf_counter() - began
        return result

    ids = itertools.count()  # each picture has its own draws
    for _ in range(rounds):
        decoded = [timed("decode", imaging.decode, data, max_pixels=_MAX_PIXELS).rgb for data in files]
        found = timed("detect", detector.predict, decoded)
        for rgb, some in zip(decoded, found, strict=True):
            timed("barcodes", barcode.read, rgb)
            timed("quality", quality.measure, rgb)
            made = [timed("thumbnail", imaging.thumbnail, rgb), timed("draw boxes", imaging.draw_boxes, rgb, some)]
            boxes = [one["box"] for one in some]
            augmenter = Augmenter(rgb, image_id=f"{next(ids):036x}", device=detector.device)
            made += [timed(name, augmenter.apply, name, boxes).rgb for name in DEFAULT_AUGMENTATIONS]
            for one in made:
                timed("encode all six", imaging.encode_jpeg, one)
    total = sum(spent.values())
    count = rounds * len(files)
    return [Row(f"step: {step}", taken / count * 1e3, "ms an image", total / count * 1e3, taken / total) for step, taken in spent.items()]


def _ssdlite() -> tuple[Any, Card]:
    """Torchvision's model with seeded weights: the time is that of the trained one, the detections mean nothing."""
    torch.manual_seed(0)
    model: Any = torchvision.models.get_model(SSDLITE, weights=None, weights_backbone=None, num_classes=_CLASSES)
    with torch.no_grad():  # few anchors stand out, as with trained weights
        for layers in model.head.classification_head.module_list:
            layers[-1].bias.view(-1, _CLASSES)[:, 0] = 12.0
    return model, Card(SSDLITE, "seeded", tuple(str(one) for one in range(_CLASSES)), 0.3, "")


def _bundled() -> tuple[Any, Card]:
    return model_registry.load(model_registry.BUNDLED)


def _eager(model: nn.Module, floats: list[torch.Tensor]) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return model(floats)

    return call


def _raw(detector: detect.Detector, small: list[imaging.Rgb]) -> Callable[[], object]:
    return lambda: detector.predict(small)


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    return lambda: seconds(call)
