"""The connection to MongoDB."""

from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup

MIN_TIMEOUT_S: Final = 0.001
"""The minimum of MongoDB's time limits. It counts milliseconds, and takes 0 as no limit."""


class Mongo(SettingsGroup):
    """Connection to MongoDB, the system of record. The variables begin with ``MONGODB_``."""

    model_config = SettingsConfigDict(env_prefix="MONGODB_", extra="ignore", frozen=True)
    url: str = Field("mongodb://127.0.0.1:27017/?replicaSet=shelfsight", min_length=1)
    database: str = "shelfsight"
    connect_timeout_s: float = Field(2.0, ge=MIN_TIMEOUT_S)
    socket_timeout_s: float = Field(
        30.0, ge=MIN_TIMEOUT_S, description="Seconds to wait for a response. After that, the connection counts as lost."
    )
    server_selection_timeout_s: float = Field(
        3.0,
        ge=MIN_TIMEOUT_S,
        description="Seconds to wait for a primary. After that, the request is answered with 503.",
    )
    commit_deadline_s: float = Field(
        5.0, ge=MIN_TIMEOUT_S, description="Maximum seconds for one commit transaction, including its retries."
    )
    query_deadline_s: float = Field(
        10.0, ge=MIN_TIMEOUT_S, description="Maximum seconds for one listing; MongoDB enforces this limit."
    )
