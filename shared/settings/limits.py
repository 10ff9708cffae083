"""The limits for an upload."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup
from shared.settings.values import MIB


class Limits(SettingsGroup):
    """Limits for an upload; ``GET /limits`` returns the first four. The variables begin with ``LIMITS_``."""

    model_config = SettingsConfigDict(env_prefix="LIMITS_", extra="ignore", frozen=True)
    max_body_bytes: int = Field(64 * MIB, gt=0)
    max_images: int = Field(1000, gt=0, le=65_000)
    max_image_bytes: int = Field(20 * MIB, gt=0)
    max_pixels: int = Field(50_000_000, gt=0)
    max_values: int = Field(
        200_000,
        gt=0,
        description="Maximum JSON values in a body. In memory, a value can be fifty times as large as in the body.",
    )
    max_bytes_in_flight: int = Field(
        256 * MIB,
        gt=0,
        description="Maximum decompressed bytes of all uploads in progress in one web process. "
        "More are answered with 429.",
    )
    max_queue_age_s: int = Field(
        86_400,
        ge=0,
        description="Seconds for which the oldest images may have waited until a worker takes up images of their store. After that, uploads are answered with 429. 0: never. "
        "The default is a day, so that workers that are stopped for a while refuse nothing.",
    )
