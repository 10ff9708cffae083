"""The rules for fetching images by URL."""

from pydantic import ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from shared.fetch import addresses, urls
from shared.fetch.rules import FetchRules
from shared.settings.group import SettingsGroup
from shared.settings.values import Network, parse_json_list


class Fetch(SettingsGroup, FetchRules):
    """Rules for fetching images by URL; the limits apply to each process. The variables begin with ``FETCH_``."""

    # The validators below decode the lists, because the error of pydantic-settings would not say what to write.
    model_config = SettingsConfigDict(env_prefix="FETCH_", extra="ignore", frozen=True, enable_decoding=False)

    @field_validator("blocked_domains", "allowed_domains", "permitted_hosts", mode="before")
    @classmethod
    def _parse_names(cls, value: object, info: ValidationInfo) -> tuple[str, ...]:
        return parse_json_list(
            f"FETCH_{info.field_name}".upper(), value, urls.parse_name, '["example.org", "images.example.net"]'
        )

    @field_validator("blocked_networks", "permitted_networks", mode="before")
    @classmethod
    def _parse_networks(cls, value: object, info: ValidationInfo) -> tuple[Network, ...]:
        variable = f"FETCH_{info.field_name}".upper()
        return parse_json_list(variable, value, addresses.parse_network, '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]')
