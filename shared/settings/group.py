"""The base class of all groups of settings, which determines where their values are read from."""

import os
import warnings
from typing import Any

from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)


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
