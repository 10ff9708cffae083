"""The blob store."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup
from shared.settings.values import MIB


class Blobs(SettingsGroup):
    """The blob store and the disk space that it needs. The variables begin with ``BLOBS_``."""

    model_config = SettingsConfigDict(env_prefix="BLOBS_", extra="ignore", frozen=True)
    root: Path = Path("data/blobs")
    min_free_bytes: int = Field(
        1024 * MIB,
        ge=0,
        description="Bytes of disk space to keep free, in addition to the bytes that waiting images still need. If "
        "fewer are free, uploads are answered with 507.",
    )
    growth: float = Field(
        2.0, ge=0, description="Bytes to reserve for the results of a waiting image, for each byte of its original."
    )
