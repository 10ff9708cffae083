"""Where settings are read from, how their values are parsed, and how an invalid setting is reported."""

import json
import os
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

Item = TypeVar("Item")


def parse_json_list(variable: str, value: object, parse_item: Callable[[str], Item], example: str) -> tuple[Item, ...]:
    """Parse a JSON list.

    pydantic-settings could parse it too, but its error message does not show what to write instead.
    """
    try:
        items = json.loads(value) if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise TypeError("the value is not a list")
        return tuple(parse_item(str(item)) for item in items)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{variable} must be a JSON list like {example}: {error}") from None


def require(rule_holds: bool, sentence: str) -> None:  # noqa: FBT001 -- reads like an assertion
    """Raise ``ValueError`` with a sentence for the operator if a rule about settings does not hold."""
    if not rule_holds:
        raise ValueError(sentence)


class SecretFiles(SecretsSettingsSource):
    """Reads settings from the files in ``SECRETS_DIR``.

    The name of a file is the name of the variable in lower case, such as ``mongodb_url``. A file that cannot be read is
    an error, although pydantic-settings only warns if ``SECRETS_DIR`` is missing, or if a folder exists in the place of
    a file. A container mount creates such a folder when the file to mount is missing. If there were only a warning, the
    service would start with the default value of the setting.
    """

    def __call__(self) -> dict[str, Any]:
        """Read the settings from the files.

        :raises SettingsError: when the folder, or the file for a setting, cannot be read.
        """
        with warnings.catch_warnings(action="error"):
            try:
                return super().__call__()
            except (UserWarning, OSError) as error:
                raise SettingsError("SECRETS_DIR") from error


class SettingsGroup(BaseSettings):
    """Base class of all groups of settings.

    An environment variable takes precedence over a file in ``SECRETS_DIR``. An empty variable counts as unset. Unknown
    variables are ignored.
    """

    # No limit may be infinite, because it could not be converted to milliseconds.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True, allow_inf_nan=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- .env files are not read here
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- replaced by SecretFiles
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of settings, in descending order of precedence."""
        return init_settings, env_settings, SecretFiles(settings_cls, os.environ.get("SECRETS_DIR") or None)


def explain(error: ValidationError | SettingsError) -> str:
    """Return a sentence that says which setting is wrong and why.

    The sentence does not contain the value of the setting, because the value can be a secret.
    """
    if isinstance(error, SettingsError):
        return f"cannot read a setting: {error}{f': {error.__cause__}' if error.__cause__ else ''}"
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"invalid settings: {reason}"
    variable = _variable(error.title, str(first["loc"][0]))
    return f"invalid setting: {reason}" if reason.startswith(variable) else f"invalid setting {variable}: {reason}"


def _variable(group: str, field: str) -> str:
    """Return the name of the environment variable for a field of a group of settings.

    If the field has an alias, ``field`` is the alias, which is the name of the variable.
    """
    prefixes = {
        settings.__name__: settings.model_config.get("env_prefix", "") for settings in SettingsGroup.__subclasses__()
    }
    return field if field.isupper() else f"{prefixes.get(group, '')}{field}".upper()
