"""Who may use the service."""

import json
import re
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup

_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
_MIN_SECRET_BYTES: Final = 32
_EXAMPLE: Final = '{"2026-11": "<at least 32 random characters>"}'


class Access(SettingsGroup):
    """Who may use the service. The variables have no common prefix.

    ``signing_keys`` maps the id of a key to its secret. The first key signs new tokens; tokens that were signed with any
    of them are valid.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)
    environment: Literal["development", "production"] = Field("development", validation_alias="SHELFSIGHT_ENV")
    access: Literal["off", "on"] = Field("off", validation_alias="ACCESS")
    signup: Literal["open", "invited", "closed"] = Field("open", validation_alias="SIGNUP")
    signing_keys: SecretStr = Field(SecretStr(""), validation_alias="SIGNING_KEYS", description="JSON object: id of a key to its secret.")

    @property
    def is_on(self) -> bool:
        """Whether requests need credentials."""
        return self.access == "on"

    def parse_signing_keys(self) -> dict[str, bytes]:
        """Return the signing keys by their ids, in the order in which they are set."""
        text = self.signing_keys.get_secret_value()
        return {key_id: secret.encode() for key_id, secret in json.loads(text).items()} if text else {}

    @field_validator("signing_keys")
    @classmethod
    def _check_signing_keys(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text:
            return value
        try:
            keys: Any = json.loads(text)
        except ValueError:
            keys = None
        if not isinstance(keys, dict) or not keys or not all(isinstance(secret, str) for secret in keys.values()):
            raise ValueError(f"SIGNING_KEYS must be a JSON object like {_EXAMPLE}.")
        for key_id, secret in keys.items():
            if not _KEY_ID.match(key_id):
                raise ValueError("SIGNING_KEYS: the id of a key must have 1 to 32 letters, digits, - or _.")
            if len(secret.encode()) < _MIN_SECRET_BYTES or len(set(secret)) < _MIN_SECRET_BYTES // 4:
                raise ValueError(f"SIGNING_KEYS: a secret is too short or too regular; use at least {_MIN_SECRET_BYTES} random characters.")
        return value

    @model_validator(mode="after")
    def _check_modes(self) -> "Access":
        if self.environment == "production":
            raise ValueError(
                "SHELFSIGHT_ENV=production is not supported yet: files have no signed URLs, pages have no sign-in, and "
                "requests have no rate limits. Use ACCESS=on on a loopback address."
            )
        if self.is_on and not self.signing_keys.get_secret_value():
            raise ValueError(f"SIGNING_KEYS is missing, and ACCESS=on needs it: a JSON object like {_EXAMPLE}. scripts/start creates it.")
        return self
