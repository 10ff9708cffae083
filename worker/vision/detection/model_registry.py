"""Where a detector comes from: the bundled one, torchvision's by name, or a checkpoint file of the user's own.

A checkpoint is ``NAME.safetensors`` or ``NAME.pt`` (a state dict, read as weights only) with its card ``NAME.json`` beside it::

    {"name": "shelves", "version": "3", "architecture": "grocery", "labels": ["Apple", ...], "size": 256, "threshold": 0.3}

``architecture`` is ``grocery`` (the network of ``worker.vision.detection.network``) or a builder of ``torchvision.models.detection``; labels
are without the background. ``scripts/train`` writes both files.
"""

import hashlib
import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import worker.vision.without_compiler  # noqa: F401 -- before torchvision

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.ssd import SSD

from worker.vision.detection.network import detector, fill

BUNDLED: Final = "grocery"
_FOLDER: Final = Path(__file__).parents[1] / "models"
_THRESHOLD: Final = 0.3
_TYPES: Final = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
_MOST_BYTES: Final = 2 * 1024**3
_DOWNLOAD_TIMEOUT_S: Final = 30.0


class ModelUnusable(Exception):
    """A model cannot be had or used; the sentence says which and what to do."""


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model besides its weights.

    ``labels`` has an entry for each class number that the network gives, the background (0) included. ``half_loss`` is how
    much mAP50 the model loses in half precision, from 0 to 1, where that was measured.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    threshold: float
    weights_sha256: str
    half_loss: float | None = None

    @property
    def info(self) -> dict[str, str]:
        """Name, version and digest of the weights: kept with every result."""
        return {"name": self.name, "version": self.version, "weights_sha256": self.weights_sha256}


def names() -> list[str]:
    """Give the names of the models that ``load`` knows; it takes a checkpoint's path as well."""
    return [BUNDLED, *torchvision.models.list_models(module=detection)]


def load(source: str) -> tuple[nn.Module, Card]:
    """Build a model and fill it with its weights.

    :param source: one of ``names``, or the path of a checkpoint.
    :raises ModelUnusable: unknown, damaged, without its card, or its weights can't be fetched.
    """
    if source == BUNDLED:
        return _checkpoint(_FOLDER / f"{BUNDLED}.safetensors")
    if Path(source).suffix in {".safetensors", ".pt", ".pth"}:
        return _checkpoint(Path(source))
    if source in names():
        return _pretrained(source)
    raise ModelUnusable(f"There is no model {source!r}. Known are {', '.join(names())}, and the path of a .safetensors or .pt file.")


def _pretrained(name: str) -> tuple[nn.Module, Card]:
    """Take torchvision's model with its ``DEFAULT`` weights, from its cache or its server."""
    weights: Any = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        with _timeout(_DOWNLOAD_TIMEOUT_S):
            model = torchvision.models.get_model(name, weights=weights, progress=False)
    except Exception as error:  # no connection; a digest that differs; whatever unpickling raises
        damaged = f"{file} is damaged. Remove it" if file.exists() else f"They cannot be fetched from {weights.url}. Put the file at {file}"
        raise ModelUnusable(f"There are no weights of {name}. {damaged}.") from error
    labels = tuple(weights.meta["categories"])
    return model, Card(name, f"{torchvision.__version__} {weights.name}", labels, _THRESHOLD, _digest(file.read_bytes()))


def _checkpoint(path: Path) -> tuple[nn.Module, Card]:
    card = path.with_suffix(".json")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ModelUnusable(f"{path} is larger than {_MOST_BYTES} bytes.")
        data, said = path.read_bytes(), json.loads(card.read_text())
    except (OSError, ValueError) as error:
        raise ModelUnusable(f"{path} or its card {card.name} cannot be read: {error}") from error
    try:
        labels = tuple(str(label) for label in said["labels"])
        architecture = str(said.get("architecture", BUNDLED))
        model = build(architecture, len(labels), int(said.get("size", 256)))
        loss = said.get("half_loss")
        found = Card(
            str(said["name"]), str(said["version"]), ("", *labels), float(said.get("threshold", _THRESHOLD)), _digest(data),
            None if loss is None else float(loss),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnusable(f"{card} is not a model's card: {error!r}") from error
    try:
        weights = _tensors(path, data)
        if isinstance(model, SSD) and architecture == BUNDLED:
            fill(model, weights)
        else:
            model.load_state_dict(weights)
    except Exception as error:  # unpickling raises what it likes; a file that is cut a ValueError; a state dict of another network a RuntimeError
        raise ModelUnusable(f"{path} does not hold the weights that its card describes: {(str(error).splitlines() or [repr(error)])[0]}") from error
    return model, found


def build(architecture: str, classes: int, size: int) -> nn.Module:
    """Build a network with random weights.

    :param classes: number of labels, the background not counted.
    :param size: side of the input in pixels, where the architecture is the project's own.
    """
    made: nn.Module
    if architecture == BUNDLED:
        made = detector(classes, size)
        return made
    if architecture not in names():
        raise ValueError(f"unknown architecture {architecture!r}")
    made = torchvision.models.get_model(architecture, weights=None, weights_backbone=None, num_classes=classes + 1)
    return made


def _tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        found = _safetensors(data)
    else:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        found = found.get("model", found)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}


def _safetensors(data: bytes) -> dict[str, Tensor]:
    """Read the format's header and slices (github.com/huggingface/safetensors#format): a GPU machine may have torch and nothing more."""
    begin = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, said in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, end = said["data_offsets"]
            part = bytearray(data[begin + first : begin + end])
            found[name] = torch.frombuffer(part, dtype=_TYPES[said["dtype"]]).reshape(said["shape"])
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Give every new connection a time limit: torchvision's loader sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
