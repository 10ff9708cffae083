"""The limits and retention times of inspections."""

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup
from shared.settings.values import MIB, require


class Inspect(SettingsGroup):
    """Limits and retention times for inspections of single images. The variables begin with ``INSPECT_``."""

    model_config = SettingsConfigDict(env_prefix="INSPECT_", extra="ignore", frozen=True)
    max_source_bytes: int = Field(4 * MIB, gt=0, description="Maximum bytes of an image; a larger image is refused.")
    wait_s: float = Field(
        10.0, gt=0, description="Seconds that a request waits for its result before it is answered with 202."
    )
    fresh_s: float = Field(
        300.0, gt=0, description="Seconds for which a result is reused without a new request to the source."
    )
    failed_s: float = Field(10.0, gt=0, description="Seconds for which a failure is reported without a new attempt.")
    keep_s: float = Field(
        86_400.0, gt=0, description="Seconds for which results and their images are kept after their last use."
    )
    max_store_bytes: int = Field(
        1024 * MIB,
        gt=0,
        description="Maximum total bytes of all kept images; the least recently used images are deleted first.",
    )
    per_minute: int = Field(
        60, gt=0, description="Maximum new inspections per minute of an account, or of a client address while access is open; more are answered with 429."
    )
    dreams_per_minute: int = Field(
        6,
        gt=0,
        description="Maximum new inspections with a dream per minute of an account, or of a client address while access is open. "
        "A dream takes seconds of CPU time.",
    )
    max_pending: int = Field(
        16, gt=0, description="Maximum unfinished inspections of an account, or of a client address while access is open; more are answered with 429."
    )
    max_waiting: int = Field(1000, gt=0, description="Maximum inspections in the queue; more are answered with 429.")
    at_once: int = Field(32, gt=0, description="Maximum number of concurrent inspections in one inspector.")
    lease_s: float = Field(
        30.0, gt=0, description="Seconds until a claim of an inspector expires unless it is renewed."
    )

    @model_validator(mode="after")
    def _check_retention(self) -> "Inspect":
        for name, value in (("INSPECT_FRESH_S", self.fresh_s), ("INSPECT_FAILED_S", self.failed_s)):
            require(
                value <= self.keep_s,
                f"{name} must not be greater than INSPECT_KEEP_S, because a deleted result cannot be reused",
            )
        return self
