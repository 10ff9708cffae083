"""Who may use the service."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup

_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
_MIN_SECRET_BYTES: Final = 32
_EXAMPLE_WORDS: Final = re.compile("change|default|example|insecure|password|placeholder|qwerty|secret", re.IGNORECASE)
"""Words of examples and of keyboards. Random characters contain one of them once in some ten million secrets at most."""
_EXAMPLE: Final = '{"2026-11": "<at least 32 random characters>"}'


def parse_signing_keys(text: str, *, is_production: bool = False) -> dict[str, bytes]:
    """Return the secrets in a value of ``SIGNING_KEYS`` by the ids of their keys, in the order in which they are written.

    :param is_production: whether secrets that look like examples, as in documentation and tests, are refused.
    :raises ValueError: when the text has another form, or a secret is too short or too regular.
    """
    try:
        keys: Any = json.loads(text)
    except ValueError:
        keys = None
    if not isinstance(keys, dict) or not keys or not all(isinstance(secret, str) for secret in keys.values()):
        raise ValueError(f"SIGNING_KEYS must be a JSON object like {_EXAMPLE}.")
    for number, (key_id, secret) in enumerate(keys.items(), 1):
        if not _KEY_ID.match(key_id):
            raise ValueError("SIGNING_KEYS: the id of a key must have 1 to 32 letters, digits, - or _.")
        if len(secret.encode()) < _MIN_SECRET_BYTES or len(set(secret)) < _MIN_SECRET_BYTES // 4 or _is_repetition(secret):
            raise ValueError(f"SIGNING_KEYS: the secret of the key {_shown(key_id, number)} is too short or too regular; use at least {_MIN_SECRET_BYTES} random characters.")
        if is_production and (_is_sequence(secret) or _EXAMPLE_WORDS.search(secret)):
            raise ValueError(f"SIGNING_KEYS: the secret of the key {_shown(key_id, number)} looks like an example that others know, which SHELFSIGHT_ENV=production refuses; use at least {_MIN_SECRET_BYTES} random characters.")
    return {key_id: secret.encode() for key_id, secret in keys.items()}


def _is_repetition(text: str) -> bool:
    """Return whether a text consists of one with fewer than ``_MIN_SECRET_BYTES`` characters, again and again."""
    return any(text.startswith(text[length:]) for length in range(1, min(_MIN_SECRET_BYTES - 1, len(text) // 2) + 1))


def _shown(key_id: str, number: int) -> str:
    """Return how an error names a key. Whoever swaps the id and the secret has a secret in place of the id, which is not shown."""
    return f'"{key_id}"' if len(key_id) < _MIN_SECRET_BYTES else f"number {number}"


def _is_sequence(text: str) -> bool:
    """Return whether at least half of the characters of a text are next to the one before in Unicode, as in ``0123abcd``."""
    return 2 * sum(abs(ord(one) - ord(other)) == 1 for one, other in pairwise(text)) >= len(text) - 1


def needs_credentials(environment: str, access: str | None) -> bool:
    """Return whether requests need credentials.

    :param environment: a value of ``SHELFSIGHT_ENV``.
    :param access: a value of ``ACCESS``; None if it is not set.
    """
    return environment == "production" if access is None else access == "on"


class Access(SettingsGroup):
    """Who may use the service. The variables have no common prefix.

    ``signing_keys`` maps the id of a key to its secret. The first key signs new tokens and URLs; those that were signed
    with any of the keys are valid. ``signing_keys_file`` is a file with such a value, which is read again when it changes.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)
    environment: Literal["development", "production"] = Field("development", validation_alias="SHELFSIGHT_ENV")
    access: Literal["off", "on"] | None = Field(None, validation_alias="ACCESS", description="Default: on in production, otherwise off.")
    signup: Literal["open", "invited", "closed"] | None = Field(None, validation_alias="SIGNUP", description="Default: closed in production, otherwise open.")
    signing_keys: SecretStr = Field(SecretStr(""), validation_alias="SIGNING_KEYS", description="JSON object: id of a key to its secret.")
    signing_keys_file: Path | None = Field(None, validation_alias="SIGNING_KEYS_FILE", description="File with the value of SIGNING_KEYS.")
    signed_url_lifetime_s: int = Field(3600, ge=60, le=7 * 86_400, validation_alias="SIGNED_URL_LIFETIME_S", description="Seconds for which a signed URL is valid at least.")

    @property
    def is_on(self) -> bool:
        """Whether requests need credentials."""
        return needs_credentials(self.environment, self.access)

    @property
    def is_production(self) -> bool:
        """Whether the service may be reached from other machines."""
        return self.environment == "production"

    @property
    def signup_mode(self) -> Literal["open", "invited", "closed"]:
        """Who can sign up."""
        return self.signup or ("closed" if self.is_production else "open")

    @field_validator("signing_keys")
    @classmethod
    def _check_signing_keys(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            parse_signing_keys(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_modes(self) -> "Access":
        if self.is_production and not self.is_on:
            raise ValueError("ACCESS=off is not allowed with SHELFSIGHT_ENV=production, in which every request needs credentials. Unset ACCESS, or set SHELFSIGHT_ENV=development.")
        if self.is_production and self.signing_keys.get_secret_value():
            parse_signing_keys(self.signing_keys.get_secret_value(), is_production=True)
        if self.is_on and not self.signing_keys.get_secret_value() and self.signing_keys_file is None:
            raise ValueError(f"SIGNING_KEYS is missing, and {'SHELFSIGHT_ENV=production' if self.is_production else 'ACCESS=on'} needs it: a JSON object like {_EXAMPLE}. scripts/start creates it.")
        return self
