"""How many requests a client may send while access is on."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup


class Rates(SettingsGroup):
    """Maximum numbers of requests in a minute; 0 means that there is no limit. The variables begin with ``RATE_``.

    They protect the service from clients that repeat requests without end, so they are far above what a person with a
    browser, or a program that reads lists, needs. While access is open, none of them applies. ``INSPECT_PER_MINUTE`` and
    other settings of its group always limit inspections.
    """

    model_config = SettingsConfigDict(env_prefix="RATE_", extra="ignore", frozen=True)
    requests_per_minute: int = Field(6000, ge=0, description="Maximum requests of a user, or of an API key, except uploads and files by signed URL.")
    uploads_per_minute: int = Field(
        0,
        ge=0,
        description="Maximum uploads of a user, or of an API key. There is no limit by default, because images must not be lost when a store sends what it has collected.",
    )
    address_per_minute: int = Field(
        600,
        ge=0,
        description="Maximum requests of a client address to operations that need no credentials. As many requests with "
        "missing or invalid credentials are answered with 401. More are answered with 429.",
    )
