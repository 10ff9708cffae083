"""The intervals of the sweep."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup


class Sweep(SettingsGroup):
    """Intervals of the sweep. The variables begin with ``SWEEP_``."""

    model_config = SettingsConfigDict(env_prefix="SWEEP_", extra="ignore", frozen=True)
    interval_s: float = Field(2.0, gt=0, description="Seconds between two runs of the sweep.")
    orphan_age_s: float = Field(600.0, gt=0, description="Seconds after which a spool without a batch is deleted.")
    clean_interval_s: float = Field(30.0, gt=0, description="Seconds between two clean-ups of files.")
