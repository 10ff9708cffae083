"""The file from which an ended training goes on."""

from pathlib import Path
from typing import Any

import torch


class OtherTraining(Exception):
    """The folder holds a training of other data or with another plan."""


def read(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read what ``write`` wrote.

    :param identity: plan and data of the training that asks.
    :raises OtherTraining: it is damaged, or of another training.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises what it likes
        raise OtherTraining(f"{path} is damaged. Remove it to begin anew.") from error
    if state.get("identity") != identity:
        raise OtherTraining(f"{path} belongs to other data or other settings, or to an older version of this tool. Choose another folder, or the same settings.")
    return state


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint as a whole: a run that is killed here keeps the one before."""
    new = path.with_suffix(".new")
    torch.save(state, new)
    new.replace(path)
