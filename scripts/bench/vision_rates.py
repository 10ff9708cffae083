"""Measure a worker's processing without the service, on one core: the network alone, and the whole processing."""

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
from scripts.bench.baselines.loop import full_pipeline
from scripts.bench.baselines.torchvision_script import Script
from scripts.bench.extent import Extent
from scripts.bench.report import Row, Target, compare
from scripts.bench.timing import interleave, median, seconds
from shared.augmentations import DEFAULT_AUGMENTATIONS
from worker.vision import barcode, imaging, quality
from worker.vision.augment.augmenter import Augmenter
from worker.vision.detection import detect, model_registry, runtimes
from worker.vision.detection.model_registry import ModelCard

SSDLITE: Final = "ssdlite320_mobilenet_v3_large"
_CLASSES: Final = 91
_MAX_PIXELS: Final = 50_000_000
_BATCH: Final = 8
_SMOKE_BATCH: Final = 2
MIB: Final = 1024 * 1024


def measure_network(*, extent: Extent) -> list[Row]:
    """Compare the images per second of a ``Detector`` with those of a direct call to the model in torch (eager mode).

    Each call detects objects in 8 images on one thread. The decoding and encoding of images is not measured.
    """
    rows: list[Row] = []
    rounds = extent.choose(full=15, quick=5, smoke=1)
    ssdlite, bundled = (SSDLITE, _load_ssdlite, (2.2, 4.0)), (model_registry.BUNDLED, _load_bundled, (None, None))
    for name, load, targets in extent.choose(full=(ssdlite, bundled), quick=(ssdlite, bundled), smoke=(bundled,)):
        model, card = load()
        size = model.transform.fixed_size[0]
        images = list(np.random.default_rng(1).integers(0, 256, (_BATCH, size, size, 3), np.uint8))
        tensors = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]
        subjects = {"eager": _call_eager(model.eval(), tensors)}
        for precision in ("full", "half") if runtimes.supports_half("cpu") else ("full",):
            detector = detect.Detector(load()[0], card, device="cpu", precision=precision, threads=1)
            subjects[precision] = _call_detector(detector, images)
        times = interleave({subject: _timed(call) for subject, call in subjects.items()}, rounds)
        eager = _BATCH / median(times["eager"])
        for (precision, dtype), at_least in zip((("full", "f32"), ("half", "bf16")), targets, strict=True):
            if precision in times:
                rows.append(compare(f"{name}, {dtype}, of torch eager", _BATCH / median(times[precision]), "images/s", eager, at_least=at_least))
    return rows


def measure_whole(*, extent: Extent) -> list[Row]:
    """Compare the images per second of the whole processing with those of a script that uses torchvision.

    Both process JPEGs of 1280x960 pixels.
    """
    files = _draw(extent)
    script = Script(_load_ssdlite()[0])
    lite = detect.Detector(*_load_ssdlite(), device="cpu", precision="full", threads=1)
    bundled = detect.load(device="cpu")
    process_with_lite, process_with_bundled = full_pipeline(lite), full_pipeline(bundled)
    counts = {"script": len(files) // 2, "lite": len(files), "bundled": len(files)}
    subjects: dict[str, Callable[[], object]] = {
        "script": lambda: [script.process(data) for data in files[: counts["script"]]],
        "lite": lambda: process_with_lite(files),
        "bundled": lambda: process_with_bundled(files),
    }
    times = interleave({name: _timed(call) for name, call in subjects.items()}, extent.choose(full=9, quick=3, smoke=1))
    rates = {name: counts[name] / median(samples) for name, samples in times.items()}
    rows = [
        compare("whole work with ssdlite320, f32, of the torchvision script", rates["lite"], "images/s", rates["script"], at_least=5),
        compare(f"the same with grocery as deployed ({bundled.precision} precision)", rates["bundled"], "images/s", rates["script"]),
    ]
    return rows + _time_steps(bundled, files, extent.choose(full=20, quick=5, smoke=1))


def measure_memory(*, extent: Extent) -> list[Row]:
    """Measure how much the resident memory of a process with the bundled model grows while it processes many images.

    The memory at the end is compared with the memory after the first group of images.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        first, after = pool.submit(_resident_memory, extent).result(timeout=600)
    name = "resident memory with torch, OpenVINO and groups of eight pictures, of that after the first group"
    return [Row(name, after, "MiB", first, after / first, Target(at_most=1.15))]


def _resident_memory(extent: Extent) -> tuple[float, float]:
    process = psutil.Process()
    detector = detect.load(device="cpu")
    files = _draw(extent)
    process_files = full_pipeline(detector)
    process_files(files)
    first = process.memory_info().rss / MIB
    for _ in range(extent.choose(full=25, quick=5, smoke=1)):
        process_files(files)
    return first, process.memory_info().rss / MIB


def _time_steps(detector: detect.Detector, files: list[bytes], rounds: int) -> list[Row]:
    """Measure the milliseconds per image of each step of the whole processing."""
    spent: dict[str, float] = {}

    def timed(step: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = call(*args, **kwargs)
        spent[step] = spent.get(step, 0.0) + time.perf_counter() - started
        return result

    ids = itertools.count()  # gives each image its own random augmentations
    for _ in range(rounds):
        decoded = [timed("decode", imaging.decode, data, max_pixels=_MAX_PIXELS).rgb for data in files]
        found = timed("detect", detector.predict, decoded)
        for rgb, detections in zip(decoded, found, strict=True):
            timed("barcodes", barcode.read, rgb)
            grey = timed("luma", quality.luma, rgb)
            timed("quality", quality.measure, grey)
            timed("perceptual hash", quality.perceptual_hash, grey)
            variants = [timed("thumbnail", imaging.thumbnail, rgb), timed("draw boxes", imaging.draw_boxes, rgb, detections)]
            boxes = [detection["box"] for detection in detections]
            augmenter = Augmenter(rgb, image_id=f"{next(ids):036x}", device=detector.device)
            variants += [timed(name, augmenter.apply, name, boxes).rgb for name in DEFAULT_AUGMENTATIONS]
            for variant in variants:
                timed("encode all six", imaging.encode_jpeg, variant)
    total = sum(spent.values())
    count = rounds * len(files)
    return [Row(f"step: {step}", duration / count * 1e3, "ms an image", total / count * 1e3, duration / total) for step, duration in spent.items()]


def _draw(extent: Extent) -> list[bytes]:
    return [sample_uploads.draw_jpeg(seed) for seed in range(extent.choose(full=_BATCH, quick=_BATCH, smoke=_SMOKE_BATCH))]


def _load_ssdlite() -> tuple[Any, ModelCard]:
    """Return torchvision's SSDLite model with random weights from a fixed seed.

    The model is as fast as a trained one, so it can be used to measure the speed, but its detections are meaningless.
    """
    torch.manual_seed(0)
    model: Any = torchvision.models.get_model(SSDLITE, weights=None, weights_backbone=None, num_classes=_CLASSES)
    with torch.no_grad():  # makes few anchors have a high score, as with trained weights
        for layers in model.head.classification_head.module_list:
            layers[-1].bias.view(-1, _CLASSES)[:, 0] = 12.0
    return model, ModelCard(SSDLITE, "seeded", tuple(str(number) for number in range(_CLASSES)), 0.3, "")


def _load_bundled() -> tuple[Any, ModelCard]:
    return model_registry.load(model_registry.BUNDLED)


def _call_eager(model: nn.Module, tensors: list[torch.Tensor]) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return model(tensors)

    return call


def _call_detector(detector: detect.Detector, images: list[imaging.Rgb]) -> Callable[[], object]:
    return lambda: detector.predict(images)


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    return lambda: seconds(call)
