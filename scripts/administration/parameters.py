"""The types of the arguments and options that describe users and keys. Their rules are those of the HTTP API."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import click
from pydantic import AfterValidator, StringConstraints, TypeAdapter, ValidationError

from shared.accounts.key_format import is_key_id
from shared.accounts.permissions import ROLES, SCOPES
from shared.allowed_stores import ALL_STORES
from shared.clock import utc_now
from web.accounts import schemas

_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([dh])")


class _Validated(click.ParamType[Any]):
    """A text that a type of pydantic accepts, such as those of ``web.accounts.schemas``."""

    def __init__(self, name: str, accepted: Any, sentence: str) -> None:
        """Create the type.

        :param accepted: the type that validates and converts the text.
        :param sentence: the error sentence for a text that is not accepted.
        """
        self.name = name
        self._adapter: TypeAdapter[Any] = TypeAdapter(accepted)
        self._sentence = sentence

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            self.fail(self._sentence, param, ctx)


class _Expiry(_Validated):
    """A time in the future, or a duration from now in days or hours. The value is a naive UTC ``datetime``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if duration := _DURATION.fullmatch(value):
            amount = int(duration[1])
            return utc_now() + (timedelta(days=amount) if duration[2] == "d" else timedelta(hours=amount))
        expires_at: datetime = super().convert(value, param, ctx)
        return expires_at


def _check_key_id(text: str) -> str:
    if not is_key_id(text):
        raise ValueError
    return text


USERNAME: Final = _Validated(
    "username", schemas.Username, "A user name has 1 to 64 letters (A to Z), digits, dots, hyphens and underscores, and begins with a letter or a digit."
)
EMAIL: Final = _Validated("email", schemas.Email, "An email address has the form name@host.")
STORE: Final = _Validated("store", schemas.StoreName, f"The name of a store has 1 to 200 characters and no control characters; {ALL_STORES} stands for all stores.")
KEY_NAME: Final = _Validated("name", schemas.KeyName, "The name of a key has 1 to 100 characters and no control characters.")
EXPIRY: Final = _Expiry("time", schemas.ExpiresAt, "Give a time in the future, such as 2030-06-30T00:00:00Z, or a duration from now, such as 90d or 12h.")
KEY_ID: Final = _Validated("id", Annotated[str, AfterValidator(_check_key_id)], 'The id of a key has 16 lowercase letters and digits; "scripts/admin list" shows it.')
URL: Final = _Validated("url", Annotated[str, StringConstraints(pattern=r"^https?://\S+$")], "Give an address such as https://shelf.example.")
ROLE: Final = click.Choice(list(ROLES))
SCOPE: Final = click.Choice(SCOPES)
