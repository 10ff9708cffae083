"""Reads the settings when a program starts, and explains which setting is wrong."""

import sys

from pydantic import ValidationError
from pydantic_settings import SettingsError

from shared.settings.group import SettingsGroup
from shared.settings.groups import Settings


def read() -> Settings:
    """Read the settings when a program starts.

    If a setting is invalid, the program exits with an error sentence on standard error.
    """
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        sys.exit(f"error: {explain(error)}")


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
