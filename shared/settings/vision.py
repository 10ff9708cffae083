"""Detection and augmentations."""

from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from shared.augmentations import AUGMENTATIONS
from shared.settings.group import SettingsGroup


class Vision(SettingsGroup):
    """Detection and augmentations. The variables begin with ``VISION_``."""

    model_config = SettingsConfigDict(env_prefix="VISION_", extra="ignore", frozen=True)
    augmentations: tuple[str, ...] | None = Field(
        None,
        description="JSON list of the default augmentations. When unset, the four in the API documentation apply.",
    )
    threads: int = Field(
        1,
        ge=1,
        description="Threads for the model in one process; the same number of other threads decode and encode images.",
    )
    in_turn: bool = Field(
        default=False,
        description="Whether a single thread runs the model (on a CPU) and decodes and encodes images. "
        "Use it if there are as many workers as cores.",
    )
    model: str = Field(
        "grocery",
        min_length=1,
        description="The detector: grocery, a builder of torchvision.models.detection, or the path of a checkpoint.",
    )
    device: Literal["cpu", "cuda"] | None = Field(
        None, description="Device for the model. When unset, a GPU is used if there is one."
    )
    precision: Literal["auto", "full", "half"] = Field(
        "auto",
        description="auto means half if the device supports it and the mAP50 of the model falls by at most 0.5 points.",
    )

    @field_validator("augmentations")
    @classmethod
    def _check_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = set(names or ()) - set(AUGMENTATIONS)
        if unknown:
            raise ValueError(
                f"unknown augmentations: {', '.join(sorted(unknown))}; valid names: {', '.join(AUGMENTATIONS)}"
            )
        return names
