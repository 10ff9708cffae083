"""The pydantic models for the bodies of requests about accounts. They validate requests, and OpenAPI is generated from them."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, LiteralString

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from shared.accounts import passwords
from shared.accounts.permissions import Role, Scope
from shared.accounts.users import EMAIL_PATTERN, USERNAME_PATTERN
from shared.allowed_stores import ALL_STORES
from shared.storage.schema import MAX_NAME_LENGTH
from web.http.timestamps import parse_timestamp

_MAX_PASSWORD: Final = 1024
_MAX_TOKEN: Final = 4096


def _without_control_characters(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise PydanticCustomError("bad_text", "The text contains a control character; remove it.")
    return value


def _check_username(value: str) -> str:
    if not value:
        raise PydanticCustomError("blank", "The user name is missing; enter one.")
    if not re.fullmatch(USERNAME_PATTERN, value):
        raise PydanticCustomError(
            "bad_value", "The user name is invalid; use at most 64 letters (a to z), digits, dots, hyphens and underscores, and begin with a letter or a digit."
        )
    return value


def _check_email(value: str) -> str:
    if not value:
        raise PydanticCustomError("blank", "The email address is missing; enter one.")
    if not re.fullmatch(EMAIL_PATTERN, value):
        raise PydanticCustomError("bad_value", "The email address is invalid; enter one like anna@example.org.")
    return value


def _check_new_password(value: str) -> str:
    fault = passwords.find_fault(value)
    if fault is not None:
        raise PydanticCustomError("bad_password", "{fault}", {"fault": fault})
    return value


def _not_blank(sentence: LiteralString) -> AfterValidator:
    """Return a validator that refuses an empty text with a sentence."""

    def check(value: str) -> str:
        if not value:
            raise PydanticCustomError("blank", sentence)
        return value

    return AfterValidator(check)


def _in_the_future(value: datetime) -> datetime:
    if value <= datetime.now(UTC).replace(tzinfo=None):
        raise PydanticCustomError("bad_timestamp", "The time is not in the future.")
    return value


KeyName = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, max_length=100),
    _not_blank("The name of the key is missing; enter one."),
    AfterValidator(_without_control_characters),
    Field(json_schema_extra={"minLength": 1}),
]
StoreName = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_NAME_LENGTH),
    AfterValidator(_without_control_characters),  # they could command the terminal of an operator who lists the rights
]
Stores = Annotated[list[StoreName], Field(max_length=1000, description=f"Names of stores, or {ALL_STORES} for all stores")]
Username = Annotated[str, StringConstraints(strict=True), AfterValidator(_check_username), Field(json_schema_extra={"pattern": f"^{USERNAME_PATTERN}$"})]
Email = Annotated[
    str, StringConstraints(strict=True, max_length=254), AfterValidator(_check_email), Field(json_schema_extra={"pattern": f"^{EMAIL_PATTERN}$"})
]
NewPassword = Annotated[
    str,
    StringConstraints(strict=True, max_length=_MAX_PASSWORD),
    AfterValidator(_check_new_password),
    Field(json_schema_extra={"format": "password"}, description="At least 15 characters; no common password, and no repeated text"),
]
Password = Annotated[
    str,
    StringConstraints(strict=True, max_length=_MAX_PASSWORD),
    _not_blank("The password is missing; enter it."),
    Field(json_schema_extra={"format": "password", "minLength": 1}),
]
_Name = Annotated[
    str,
    StringConstraints(strict=True, max_length=254),
    _not_blank("The user name or the email address is missing; enter it."),
    Field(json_schema_extra={"minLength": 1}),
]
Token = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=_MAX_TOKEN)]
ExpiresAt = Annotated[
    datetime,
    BeforeValidator(parse_timestamp, json_schema_input_type=str | float),
    AfterValidator(_in_the_future),
    Field(description="RFC 3339 time (UTC if it has no offset), or Unix seconds, in the future"),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SignUp(_Body):
    """A new user. With an invitation, the user gets the role and the stores of the invitation."""

    username: Username
    email: Email
    password: NewPassword
    invitation: Token | None = None


class Credentials(_Body):
    """A user name or an email address, and the password."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"username": "anna", "password": "..."}]})

    username: _Name | None = None
    email: _Name | None = None
    password: Password

    @model_validator(mode="after")
    def _check_names(self) -> "Credentials":
        if (self.username is None) == (self.email is None):
            raise PydanticCustomError("one_of", "Send either `username` or `email`.")
        return self


class RefreshToken(_Body):
    """A refresh token."""

    refresh_token: Token


class SignOut(_Body):
    """The session to end: that of a refresh token, all sessions of the user, or by default that of the credentials."""

    refresh_token: Token | None = None
    everywhere: Annotated[bool, Field(strict=True)] = False


class PasswordChange(_Body):
    """The present password and a new one."""

    current_password: Password
    new_password: NewPassword


class PasswordReset(_Body):
    """The token of a one-time link, and a new password."""

    token: Token
    new_password: NewPassword


class NewApiKey(_Body):
    """A new API key, with either a role or scopes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "camera 7", "scopes": ["images:upload"], "stores": ["Main Street"]}]})

    name: KeyName
    role: Role | None = None
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=20)] | None = None
    stores: Stores
    expires_at: ExpiresAt | None = None

    @model_validator(mode="after")
    def _check_rights(self) -> "NewApiKey":
        if (self.role is None) == (self.scopes is None):
            raise PydanticCustomError("one_of", "Send either `role` or `scopes`.")
        return self


class UserChange(_Body):
    """The changes of a user. Omitted members stay as they are."""

    role: Role | None = None
    stores: Stores | None = None
    disabled: Annotated[bool, Field(strict=True)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_null(cls, value: Any) -> Any:
        if isinstance(value, dict) and None in value.values():
            raise PydanticCustomError("bad_text", "A member is null; omit it, or send a value.")
        return value


class NewInvitation(_Body):
    """The role and the stores of the user who will be created with an invitation."""

    role: Role
    stores: Stores


class Nothing(_Body):
    """An empty object, or no body."""
