"""Read and write the checkpoint file from which an interrupted training resumes."""

from pathlib import Path
from typing import Any

import torch


class CheckpointUnusable(Exception):
    """Raised if a checkpoint is damaged, or belongs to a training with other data, another plan, or another recipe."""


def read(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint that ``write`` wrote.

    :param identity: the recipe version, the plan and the data of the current training. It must equal the identity in
        the checkpoint.
    :raises CheckpointUnusable: the file is damaged, or it belongs to another training.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling can raise any exception
        raise CheckpointUnusable(f"{path} is damaged. Remove the file to start the training from the beginning.") from error
    if state.get("identity") != identity:
        raise CheckpointUnusable(
            f"{path} belongs to other data or other settings, or to an older version of this tool. "
            "Choose another folder, or use the data and settings with which the training began."
        )
    return state


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint atomically, so that the previous one remains if the process is killed during the write."""
    new = path.with_suffix(".new")
    torch.save(state, new)
    new.replace(path)
