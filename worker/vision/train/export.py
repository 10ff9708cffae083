"""A training's result becomes the bundled model: weights in half precision and a card beside them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def export(checkpoint: Path, folder: Path, *, name: str, version: str, threshold: float, notes: dict[str, Any]) -> None:
    """Write ``<name>.safetensors`` (f16) and ``<name>.json`` from ``final.pt`` or a detector's ``checkpoint.pt``."""
    state = torch.load(checkpoint, weights_only=True)
    weights = state["average"] if "average" in state else state["model"]
    half = {key: (tensor.half() if tensor.is_floating_point() else tensor).contiguous() for key, tensor in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(half, folder / f"{name}.safetensors")
    card = {"name": name, "version": version, "labels": state["labels"], "size": 256, "threshold": threshold, **notes}
    (folder / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n")
