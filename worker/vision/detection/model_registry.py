"""Load a detector: the bundled model, a model of torchvision by its name, or a checkpoint file that the user provides.

A checkpoint is a file ``NAME.safetensors``, or ``NAME.pt`` with a state dict, which is loaded with
``weights_only=True``. Its model card ``NAME.json`` must be in the same folder::

    {"name": "shelves", "version": "3", "architecture": "grocery", "labels": ["Apple", ...], "size": 256, "threshold": 0.3}

``architecture`` is ``grocery`` (the network in ``worker.vision.detection.network``) or the name of a builder in
``torchvision.models.detection``. ``labels`` does not include the background. ``scripts/train`` writes the checkpoint
and its model card.
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

import worker.vision.without_compiler  # noqa: F401 -- must be imported before torchvision

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.ssd import SSD

from worker.vision.detection.network import build_detector, load_weights

BUNDLED: Final = "grocery"
_FOLDER: Final = Path(__file__).parents[1] / "models"
_DEFAULT_THRESHOLD: Final = 0.3
_DTYPES: Final = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
_MAX_BYTES: Final = 2 * 1024**3
_DOWNLOAD_TIMEOUT_S: Final = 30.0


class ModelUnusable(Exception):
    """Raised if a model is missing or cannot be used. The message names the model and says what to do."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The properties of a model other than its weights.

    ``labels`` has an entry for each class index of the network, including the background (index 0). ``threshold`` is
    the default for the minimum score (0 to 1) of a detection. ``half_loss`` is the amount (0 to 1) by which half
    precision reduces the model's mAP50; None if it was not measured.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    threshold: float
    weights_sha256: str
    half_loss: float | None = None

    @property
    def info(self) -> dict[str, str]:
        """The ``name``, ``version`` and ``weights_sha256`` of the model, which are stored with every result."""
        return {"name": self.name, "version": self.version, "weights_sha256": self.weights_sha256}


def list_models() -> list[str]:
    """Return the names of all models that ``load`` can load by name."""
    return [BUNDLED, *torchvision.models.list_models(module=detection)]


def load(source: str) -> tuple[nn.Module, ModelCard]:
    """Build a model and load its weights.

    :param source: a name that ``list_models`` returns, or the path of a checkpoint.
    :raises ModelUnusable: the model is unknown or damaged, its model card is missing, or its weights cannot be
        downloaded.
    """
    if source == BUNDLED:
        return _load_checkpoint(_FOLDER / f"{BUNDLED}.safetensors")
    if Path(source).suffix in {".safetensors", ".pt", ".pth"}:
        return _load_checkpoint(Path(source))
    if source in list_models():
        return _load_pretrained(source)
    raise ModelUnusable(f"Unknown model {source!r}. Use one of {', '.join(list_models())}, or the path of a .safetensors or .pt file.")


def _load_pretrained(name: str) -> tuple[nn.Module, ModelCard]:
    """Load a model of torchvision with its ``DEFAULT`` weights.

    The weights are read from torchvision's cache. If they are not in the cache, they are downloaded.
    """
    weights: Any = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        with _timeout(_DOWNLOAD_TIMEOUT_S):
            model = torchvision.models.get_model(name, weights=weights, progress=False)
    except Exception as error:  # there is no connection, the digest is wrong, or unpickling failed
        if file.exists():
            raise ModelUnusable(f"The weights of {name} are damaged. Remove the file {file} to download it again.") from error
        raise ModelUnusable(f"The weights of {name} cannot be downloaded from {weights.url}. Download the file on another machine, and put it at {file}.") from error
    labels = tuple(weights.meta["categories"])
    return model, ModelCard(name, f"{torchvision.__version__} {weights.name}", labels, _DEFAULT_THRESHOLD, _digest(file.read_bytes()))


def _load_checkpoint(path: Path) -> tuple[nn.Module, ModelCard]:
    card_path = path.with_suffix(".json")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelUnusable(f"{path} is larger than the limit of {_MAX_BYTES} bytes. Use a smaller checkpoint.")
        data, fields = path.read_bytes(), json.loads(card_path.read_text())
    except (OSError, ValueError) as error:
        raise ModelUnusable(f"{path} or its model card {card_path.name} cannot be read: {error}. Check both files.") from error
    try:
        labels = tuple(str(label) for label in fields["labels"])
        architecture = str(fields.get("architecture", BUNDLED))
        model = build_model(architecture, len(labels), int(fields.get("size", 256)))
        loss = fields.get("half_loss")
        card = ModelCard(
            str(fields["name"]), str(fields["version"]), ("", *labels), float(fields.get("threshold", _DEFAULT_THRESHOLD)), _digest(data),
            None if loss is None else float(loss),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnusable(f"{card_path} is not a valid model card: {error!r}. Correct the file, or use scripts/train to write it.") from error
    try:
        weights = _read_tensors(path, data)
        if isinstance(model, SSD) and architecture == BUNDLED:
            load_weights(model, weights)
        else:
            model.load_state_dict(weights)
    except Exception as error:
        # Unpickling can raise any exception, a truncated file raises ValueError, and the state dict of another network
        # raises RuntimeError.
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ModelUnusable(f"{path} does not hold the weights that its model card describes. Use a checkpoint with its own model card. Error: {reason}") from error
    return model, card


def build_model(architecture: str, classes: int, size: int) -> nn.Module:
    """Build a network with random weights.

    :param architecture: a name that ``list_models`` returns.
    :param classes: number of labels, without the background.
    :param size: side of the square input in pixels; only the architecture ``grocery`` uses it.
    :raises ValueError: ``architecture`` is unknown.
    """
    model: nn.Module
    if architecture == BUNDLED:
        model = build_detector(classes, size)
        return model
    if architecture not in list_models():
        raise ValueError(f"unknown architecture {architecture!r}")
    model = torchvision.models.get_model(architecture, weights=None, weights_backbone=None, num_classes=classes + 1)
    return model


def _read_tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(data)
    else:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        tensors = tensors.get("model", tensors)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _read_safetensors(data: bytes) -> dict[str, Tensor]:
    """Parse a file in the safetensors format (github.com/huggingface/safetensors#format).

    The library safetensors is not used because it can be missing on a GPU machine.
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            values = bytearray(data[begin + first : begin + end])
            tensors[name] = torch.frombuffer(values, dtype=_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout for new sockets during a ``with`` block, and restore the previous default afterwards.

    The default is needed because torchvision's download function does not set a timeout for its socket.
    """
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
