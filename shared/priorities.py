"""The priorities of batches: within the turn of an account, images of a higher priority are processed first."""

from typing import Final, Literal, get_args

Priority = Literal["high", "normal", "low"]
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
"""All priorities, the highest first."""
NORMAL: Final[Priority] = "normal"
