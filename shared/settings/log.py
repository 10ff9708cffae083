"""The log output."""

from typing import Literal

from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup


class Logging(SettingsGroup):
    """Log output. The variables begin with ``LOG_``."""

    model_config = SettingsConfigDict(env_prefix="LOG_", extra="ignore", frozen=True)
    level: str = "INFO"
    format: Literal["json", "text"] = "json"
