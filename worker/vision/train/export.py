"""Write a training's result as a model that a worker can load: weights, and a model card as JSON and as Markdown."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor


def write_weights(weights: dict[str, Tensor], folder: Path, name: str) -> Path:
    """Write ``<name>.safetensors`` in half precision; returns its path."""
    from safetensors.torch import save_file  # noqa: PLC0415 -- a machine that only runs detection may lack it

    half = {key: (tensor.half() if tensor.is_floating_point() else tensor).contiguous() for key, tensor in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file(half, path)
    return path


def write_card(folder: Path, card: dict[str, Any]) -> Path:
    """Write a model card as ``<name>.json`` and, for people to read, as ``<name>.md``.

    ``worker.vision.detection.model_registry`` describes its fields.
    """
    path = folder / f"{card['name']}.json"
    path.write_text(json.dumps(card, indent=1) + "\n")
    facts = [f"| {name.replace('_', ' ')} | {value} |" for name, value in card.items() if name != "labels"]
    lines = [f"# {card['name']} {card['version']}", "", "| | |", "|---|---|", *facts, "", f"Labels: {', '.join(card['labels'])}.", ""]
    path.with_suffix(".md").write_text("\n".join(lines))
    return path
