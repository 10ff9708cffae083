"""Write the result of a training as a model that a worker can load: the weights and the model card."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor


def write_weights(weights: dict[str, Tensor], folder: Path, name: str) -> Path:
    """Write the weights to ``<name>.safetensors`` in half precision, and return the path of the file."""
    from safetensors.torch import save_file  # noqa: PLC0415 -- safetensors can be missing on a machine that only runs detection

    half = {key: (tensor.half() if tensor.is_floating_point() else tensor).contiguous() for key, tensor in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file(half, path)
    return path


def write_card(folder: Path, card: dict[str, Any]) -> Path:
    """Write a model card to ``<name>.json`` and, as text for people, to ``<name>.md``.

    :param card: the fields of the model card; see ``worker.vision.detection.model_registry``.
    :returns: the path of the JSON file.
    """
    path = folder / f"{card['name']}.json"
    path.write_text(json.dumps(card, indent=1) + "\n")
    facts = [f"| {name.replace('_', ' ')} | {value} |" for name, value in card.items() if name != "labels"]
    lines = [f"# {card['name']} {card['version']}", "", "| | |", "|---|---|", *facts, "", f"Labels: {', '.join(card['labels'])}.", ""]
    path.with_suffix(".md").write_text("\n".join(lines))
    return path
