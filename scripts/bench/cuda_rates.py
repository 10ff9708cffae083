"""Measure the rate of processing whole images with a GPU and all cores, and compare it with the network alone.

As when the service processes a claim, threads decode the next group of images and finish the previous group while the
model processes the current group. Here, the threads use all cores. This benchmark needs only torch, torchvision,
OpenCV, Pillow and rich. Barcodes are left out, because they are read on the CPU on every machine;
``scripts/bench/vision --only whole`` includes them.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

import worker.vision.without_compiler  # noqa: F401 -- must be imported before torchvision

import torch
import torchvision
from torch import Tensor, nn

from scripts.bench import sample_uploads
from scripts.bench.extent import Extent
from scripts.bench.report import Row, compare
from scripts.bench.timing import interleave, median, seconds
from shared.augmentations import DEFAULT_AUGMENTATIONS
from worker.vision import image_steps, imaging
from worker.vision.detection import detect, model_registry
from worker.vision.detection.model_registry import ModelCard
from worker.vision.imaging import Rgb

_BUILDERS: Final = ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2")
"""Models of torchvision, whose weights are random (from a fixed seed). Such a model takes as long as a trained one,
except in the steps that depend on the number of detections."""
_LABELS: Final = tuple(str(number) for number in range(91))
_MAX_PIXELS: Final = 50_000_000
_AT_LEAST: Final = 0.8
_CALLS: Final = 4
"""Number of batches in each measurement of the bare network. The half-precision copies of the weights are made for the
first of these batches, and are used for all of them."""
_UTILIZATION: Final = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100")
_END_TIMEOUT_S: Final = 10.0


def measure(device: str = "cuda", *, extent: Extent) -> list[Row]:
    """Compare two rates in images per second: that of the whole processing, and that of the neural network alone.

    Both rates are measured for the bundled model and, in a full run, for three models of torchvision.

    :param device: ``cuda``, or ``cpu`` to check only that the benchmark itself works.
    """
    imaging.limit_threads(1)  # OpenCV must not start threads, because there is already one thread for each core
    files = [sample_uploads.draw_jpeg(seed) for seed in range(extent.choose(full=32, quick=8, smoke=2))]
    rows: list[Row] = []
    for name in (model_registry.BUNDLED, *(_BUILDERS if extent is Extent.FULL else ())):
        rows += _measure_model(name, files, device, extent)
    return rows


def _measure_model(name: str, files: list[bytes], device: str, extent: Extent) -> list[Row]:
    detector = detect.Detector(*_load(name), device=device, precision="half", threads=1)
    repeated = _repeat(files, detector.batch_size * extent.choose(full=6, quick=2, smoke=1))
    rows = _compare_with_bare(name, detector, repeated, rounds=extent.choose(full=7, quick=2, smoke=1)) + _time_steps(name, detector, files)
    return rows + (_measure_gpu(name, detector, repeated) if device == "cuda" else [])


def _compare_with_bare(name: str, detector: detect.Detector, files: list[bytes], rounds: int) -> list[Row]:
    batch = detector.batch_size
    decoded = [_decode(data) for data in files[:batch]]
    bare = _Bare(_load(name)[0], decoded, detector.device)
    rates = interleave(
        {
            "bare": lambda: batch * _CALLS / seconds(bare),
            "predict": lambda: batch / seconds(lambda: detector.predict(decoded)),
            "whole": lambda: len(files) / seconds(lambda: _run_pipeline(detector, files)),
        },
        rounds,
    )
    if detector.batch_size != batch:
        raise RuntimeError(f"{name}: a batch of {batch} images did not fit into the GPU's memory. Smaller batches were used, so the rates cannot be compared.")
    bare_rate = median(rates["bare"])
    return [
        compare(f"{name}: a Detector, from decoded pictures, of the plain half-precision call", median(rates["predict"]), "images/s", bare_rate),
        compare(f"{name}: decoding, augmentation and encoding included, of the same", median(rates["whole"]), "images/s", bare_rate, at_least=_AT_LEAST),
        Row(f"{name}: pictures at once", batch, ""),
    ]


class _Bare:
    """Calls the plain torchvision model under half-precision autocast.

    The batch is already on the device and has the network's input size, so that only the network is measured.
    """

    def __init__(self, model: nn.Module, batch: list[Rgb], device: str) -> None:
        self._model = model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap in torch's types
        self._device = device
        self._batch = [self._resize(rgb) for rgb in batch]

    def __call__(self) -> None:
        half = torch.float16 if self._device == "cuda" else torch.bfloat16
        with torch.no_grad(), torch.autocast(self._device, half):
            for _ in range(_CALLS):
                self._model(self._batch)
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _resize(self, rgb: Rgb) -> Tensor:
        transform: Any = self._model.transform
        image = torch.from_numpy(rgb).permute(2, 0, 1).float().to(self._device) / 255
        images, _ = transform([image])
        resized: Tensor = nn.functional.interpolate(image[None], images.image_sizes[0], mode="bilinear")[0]
        return resized


def _run_pipeline(detector: detect.Detector, files: list[bytes]) -> None:
    """Process all files in groups.

    While the model runs on one group, threads decode the next group, and draw, augment and encode the previous group.
    """
    groups = _groups(files, detector.batch_size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def start_decoding(group: list[bytes]) -> list[Future[Rgb]]:
            return [pool.submit(_decode, data) for data in group]

        finishing: list[Future[Any]] = []
        decoding = start_decoding(next(groups))
        while decoding:
            decoded = [job.result() for job in decoding]
            decoding = start_decoding(next(groups, []))
            found = detector.predict(decoded)
            for job in finishing:
                job.result()  # keeps at most three groups in memory
            finishing = [pool.submit(_finish, rgb, detections, detector.device) for rgb, detections in zip(decoded, found, strict=True)]
        for job in finishing:
            job.result()


def _time_steps(name: str, detector: detect.Detector, files: list[bytes]) -> list[Row]:
    """Measure the milliseconds per image of each step.

    The steps run one after the other here, whereas they overlap in ``_run_pipeline``.
    """
    decoded = [_decode(data) for data in files]
    found = detector.predict(decoded)
    calls: dict[str, Callable[[], object]] = {
        "decode": lambda: [_decode(data) for data in files],
        "detect": lambda: detector.predict(decoded),
        "draw, augment and encode": lambda: [_finish(rgb, detections, detector.device) for rgb, detections in zip(decoded, found, strict=True)],
    }
    times = {step: seconds(call) / len(files) * 1e3 for step, call in calls.items()}
    total = sum(times.values())
    return [Row(f"{name}, step: {step}", duration, "ms an image", total, duration / total) for step, duration in times.items()]


def _measure_gpu(name: str, detector: detect.Detector, files: list[bytes]) -> list[Row]:
    """Measure the GPU's average utilization and its peak memory while all files are processed once.

    The utilization is read with ``nvidia-smi``.
    """
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with subprocess.Popen(_UTILIZATION, stdout=subprocess.PIPE, text=True) as monitor:
        try:
            _run_pipeline(detector, files)
        finally:
            monitor.terminate()
            output, _ = monitor.communicate(timeout=_END_TIMEOUT_S)
    utilization = [int(line) for line in output.split()]
    return [
        Row(f"{name}: the GPU is busy, on average", sum(utilization) / len(utilization), "%"),
        Row(f"{name}: most memory of the GPU", torch.cuda.max_memory_reserved() / 2**20, "MiB"),
    ]


def _load(name: str) -> tuple[nn.Module, ModelCard]:
    if name == model_registry.BUNDLED:
        return model_registry.load(name)
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(_LABELS))
    return model, ModelCard(name, "seeded", _LABELS, 0.3, "")


def _decode(data: bytes) -> Rgb:
    return imaging.decode(data, max_pixels=_MAX_PIXELS).rgb


def _finish(rgb: Rgb, detections: list[dict[str, Any]], device: str) -> image_steps.PreparedImage:
    return image_steps.finish(image_steps.PreparedImage("bench", rgb, {}), detections, list(DEFAULT_AUGMENTATIONS), device)


def _repeat(items: list[Any], count: int) -> list[Any]:
    return [items[number % len(items)] for number in range(count)]


def _groups(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group
