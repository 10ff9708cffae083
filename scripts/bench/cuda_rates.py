"""What a worker's GPU does beside its network: decoding, augmentation and encoding included, on all cores of the machine.

As in the service's pipeline within a claim, threads decode the next group and finish the last one while the model looks at this one; here on all cores. Needs
torch, torchvision, OpenCV, Pillow and rich alone. Barcodes, which are read on the CPU whatever the network runs on, are left out:
``scripts/bench/vision --only whole`` has them.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

import torch
import torchvision
from torch import Tensor, nn

from scripts.bench import sample_uploads
from scripts.bench.report import Row, against
from scripts.bench.timing import interleave, median, seconds
from shared.augmentations import DEFAULT_AUGMENTATIONS
from worker.vision import image_steps, imaging
from worker.vision.detection import detect, model_registry
from worker.vision.detection.model_registry import Card
from worker.vision.imaging import Rgb

_BUILDERS: Final = ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2")
"""With seeded weights: the time is that of trained ones but for what follows from finding nothing."""
_LABELS: Final = tuple(str(one) for one in range(91))
_MAX_PIXELS: Final = 50_000_000
_AT_LEAST: Final = 0.8
_CALLS: Final = 4
"""Batches in one measurement of the bare network: the casts of its weights are kept from one to the next."""
_BUSY: Final = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100")
_END_S: Final = 10.0


def measure(device: str = "cuda", *, quick: bool) -> list[Row]:
    """Compare whole work with the bare network, for the bundled model and three of torchvision's.

    :param device: ``cuda``; ``cpu`` only shows that the bench itself works.
    """
    imaging.use_threads(1)  # OpenCV's of each thread: there is one for each core
    files = [sample_uploads.jpeg(seed) for seed in range(8 if quick else 32)]
    rows: list[Row] = []
    for name in (model_registry.BUNDLED,) if quick else (model_registry.BUNDLED, *_BUILDERS):
        rows += _model(name, files, device, quick=quick)
    return rows


def _model(name: str, files: list[bytes], device: str, *, quick: bool) -> list[Row]:
    detector = detect.Detector(*_made(name), device=device, precision="half", threads=1)
    many = _repeated(files, detector.batch * (2 if quick else 6))
    rows = _beside_bare(name, detector, many, rounds=2 if quick else 7) + _steps(name, detector, files)
    return rows + (_on_gpu(name, detector, many) if device == "cuda" else [])


def _beside_bare(name: str, detector: detect.Detector, files: list[bytes], rounds: int) -> list[Row]:
    batch = detector.batch
    decoded = [_decoded(data) for data in files[:batch]]
    bare = _Bare(_made(name)[0], decoded, detector.device)
    rates = interleave(
        {
            "bare": lambda: batch * _CALLS / seconds(bare),
            "predict": lambda: batch / seconds(lambda: detector.predict(decoded)),
            "whole": lambda: len(files) / seconds(lambda: _whole(detector, files)),
        },
        rounds,
    )
    if detector.batch != batch:
        raise RuntimeError(f"{name}: {batch} pictures at once did not fit into the GPU's memory; these figures compare nothing.")
    bare_rate = median(rates["bare"])
    return [
        against(f"{name}: a Detector, from decoded pictures, of the plain half-precision call", median(rates["predict"]), "images/s", bare_rate),
        against(f"{name}: decoding, augmentation and encoding included, of the same", median(rates["whole"]), "images/s", bare_rate, at_least=_AT_LEAST),
        Row(f"{name}: pictures at once", batch, ""),
    ]


class _Bare:
    """The plain torchvision call under half-precision autocast, over a batch that lies on the device at the network's own size."""

    def __init__(self, model: nn.Module, batch: list[Rgb], device: str) -> None:
        self._model = model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own gap
        self._device = device
        self._batch = [self._fitted(rgb) for rgb in batch]

    def __call__(self) -> None:
        half = torch.float16 if self._device == "cuda" else torch.bfloat16
        with torch.no_grad(), torch.autocast(self._device, half):
            for _ in range(_CALLS):
                self._model(self._batch)
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _fitted(self, rgb: Rgb) -> Tensor:
        transform: Any = self._model.transform
        picture = torch.from_numpy(rgb).permute(2, 0, 1).float().to(self._device) / 255
        images, _ = transform([picture])
        fitted: Tensor = nn.functional.interpolate(picture[None], images.image_sizes[0], mode="bilinear")[0]
        return fitted


def _whole(detector: detect.Detector, files: list[bytes]) -> None:
    """Do it all: threads decode the next group and finish the last one while the model looks at this one."""
    groups = _groups(files, detector.batch)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def begin(group: list[bytes]) -> list[Future[Rgb]]:
            return [pool.submit(_decoded, data) for data in group]

        finishing: list[Future[Any]] = []
        ahead = begin(next(groups))
        while ahead:
            decoded = [job.result() for job in ahead]
            ahead = begin(next(groups, []))
            found = detector.predict(decoded)
            for job in finishing:
                job.result()  # three groups at the most are in memory
            finishing = [pool.submit(_finished, rgb, some, detector.device) for rgb, some in zip(decoded, found, strict=True)]
        for job in finishing:
            job.result()


def _steps(name: str, detector: detect.Detector, files: list[bytes]) -> list[Row]:
    """Tell what each step costs a picture by itself, one after the other."""
    decoded = [_decoded(data) for data in files]
    found = detector.predict(decoded)
    calls: dict[str, Callable[[], object]] = {
        "decode": lambda: [_decoded(data) for data in files],
        "detect": lambda: detector.predict(decoded),
        "draw, augment and encode": lambda: [_finished(rgb, some, detector.device) for rgb, some in zip(decoded, found, strict=True)],
    }
    times = {step: seconds(call) / len(files) * 1e3 for step, call in calls.items()}
    total = sum(times.values())
    return [Row(f"{name}, step: {step}", taken, "ms an image", total, taken / total) for step, taken in times.items()]


def _on_gpu(name: str, detector: detect.Detector, files: list[bytes]) -> list[Row]:
    """Tell how busy the GPU is over one round of the whole work, by its driver's own tool, and what memory that takes."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with subprocess.Popen(_BUSY, stdout=subprocess.PIPE, text=True) as watcher:
        try:
            _whole(detector, files)
        finally:
            watcher.terminate()
            said, _ = watcher.communicate(timeout=_END_S)
    busy = [int(line) for line in said.split()]
    return [
        Row(f"{name}: the GPU is busy, on average", sum(busy) / len(busy), "%"),
        Row(f"{name}: most memory of the GPU", torch.cuda.max_memory_reserved() / 2**20, "MiB"),
    ]


def _made(name: str) -> tuple[nn.Module, Card]:
    if name == model_registry.BUNDLED:
        return model_registry.load(name)
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(_LABELS))
    return model, Card(name, "seeded", _LABELS, 0.3, "")


def _decoded(data: bytes) -> Rgb:
    return imaging.decode(data, max_pixels=_MAX_PIXELS).rgb


def _finished(rgb: Rgb, detections: list[dict[str, Any]], device: str) -> image_steps.Prepared:
    return image_steps.finish(image_steps.Prepared("bench", rgb, {}), detections, list(DEFAULT_AUGMENTATIONS), device)


def _repeated(items: list[Any], count: int) -> list[Any]:
    return [items[at % len(items)] for at in range(count)]


def _groups(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group
