"""The checkpoint file from which an interrupted training resumes."""

from pathlib import Path
from typing import Any

import torch


class CheckpointUnusable(Exception):
    """The checkpoint is damaged, or belongs to a training with other data or another plan."""


def read(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint that ``write`` wrote.

    :param identity: recipe version, plan and data of the current training; must equal those in the checkpoint.
    :raises CheckpointUnusable: when the file is damaged, or belongs to another training.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling may raise any exception
        raise CheckpointUnusable(f"{path} is damaged. Remove it to start from the beginning.") from error
    if state.get("identity") != identity:
        raise CheckpointUnusable(
            f"{path} belongs to other data or other settings, or to an older version of this tool. "
            "Choose another folder, or use the same data and settings."
        )
    return state


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint atomically: a process that is killed during the write leaves the previous one."""
    new = path.with_suffix(".new")
    torch.save(state, new)
    new.replace(path)
