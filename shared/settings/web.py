"""The web processes."""

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.settings.group import SettingsGroup
from shared.settings.values import Network, parse_json_list


class Web(SettingsGroup):
    """The web processes. The variables begin with ``WEB_``.

    ``PUBLIC_URL`` and ``OPEN_BEHIND_LOOPBACK_PROXY`` are exceptions; they have no prefix.
    """

    model_config = SettingsConfigDict(env_prefix="WEB_", extra="ignore", frozen=True, populate_by_name=True)
    host: str = "127.0.0.1"
    port: int = 5000
    threads: int = Field(16, ge=4, description="Request threads of one web process.")
    workers: int = Field(2, ge=1, description="Number of web processes.")
    body_patience_s: int = Field(
        30,
        gt=0,
        description="Seconds without a new byte after which a request body is refused, because it occupies a thread.",
    )
    public_url: str = Field("", validation_alias="PUBLIC_URL")
    open_behind_loopback_proxy: bool = Field(default=False, validation_alias="OPEN_BEHIND_LOOPBACK_PROXY")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="JSON list of addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are trusted."
    )

    drain_file: Path | None = Field(
        None, description="While this file exists, /readyz is answered with 503, so that a proxy sends no new requests."
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _parse_networks(cls, value: object) -> tuple[Network, ...]:
        return parse_json_list(
            "WEB_TRUSTED_PROXIES", value, ipaddress.ip_network, '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]'
        )

    @model_validator(mode="after")
    def _require_loopback(self) -> "Web":
        if not self.open_behind_loopback_proxy and not _is_loopback(self.host):
            raise ValueError(
                f"WEB_HOST={self.host} is not allowed: files and pages are not protected yet, so the web process listens "
                "on loopback addresses only. Behind a proxy that is itself published on loopback only, set "
                "OPEN_BEHIND_LOOPBACK_PROXY=1."
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
