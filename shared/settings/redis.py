"""The connection to Redis."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup


class Redis(SettingsGroup):
    """Connection to Redis, which holds the wakeups and the request counters. The variables begin with ``REDIS_``."""

    model_config = SettingsConfigDict(env_prefix="REDIS_", extra="ignore", frozen=True)
    url: str = Field("redis://127.0.0.1:6379/0", min_length=1)
