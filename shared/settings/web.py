"""The web processes."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.settings.group import SettingsGroup
from shared.settings.values import Network, is_loopback, parse_json_list

_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[1-9][0-9]{0,4})?\Z")


class Web(SettingsGroup):
    """The web processes. The variables begin with ``WEB_``.

    ``PUBLIC_URL``, ``CORS_ORIGINS`` and ``OPEN_BEHIND_LOOPBACK_PROXY`` are exceptions; they have no prefix.
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
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias="CORS_ORIGINS", description="JSON list of other origins whose pages may use the API with an Authorization header."
    )
    open_behind_loopback_proxy: bool = Field(default=False, validation_alias="OPEN_BEHIND_LOOPBACK_PROXY")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="JSON list of addresses and networks whose X-Forwarded-For, X-Forwarded-Proto and X-Upload-Check are trusted."
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

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _parse_origins(cls, value: object) -> tuple[str, ...]:
        return parse_json_list("CORS_ORIGINS", value, _parse_origin, '["https://labels.example.org"]')

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can connect to the web processes."""
        return is_loopback(self.host)

    @property
    def address(self) -> str:
        """Host and port to listen on, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _parse_origin(text: str) -> str:
    """Return an origin in the form in which browsers send it. It is compared with theirs as it is written."""
    if not _ORIGIN.match(text) or text.endswith({"http:": ":80", "https:": ":443"}[text.partition("/")[0]]):
        raise ValueError(f"{text!r} is not an origin as browsers send it: http or https, a host name in lower case, and the port unless it is the default, without a path")
    return text
