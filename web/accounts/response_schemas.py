"""The pydantic models for responses about accounts. OpenAPI is generated from them."""

from datetime import datetime

from pydantic import BaseModel

from shared.accounts.permissions import Role, Scope


class Tokens(BaseModel):
    """The tokens of a session. ``expires_in`` is the lifetime of the access token in seconds."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int


class KeyOfRequest(BaseModel):
    """The API key with which a request was made."""

    id: str
    name: str
    expires_at: datetime | None


class Me(BaseModel):
    """Who makes the request, and what they may do. ``role`` is null if no role has exactly these scopes."""

    username: str | None
    role: Role | None
    scopes: list[Scope]
    stores: list[str]
    key: KeyOfRequest | None


class User(BaseModel):
    """A user."""

    username: str
    email: str | None
    role: Role
    scopes: list[Scope]
    stores: list[str]
    disabled: bool
    created_at: datetime


class UserPage(BaseModel):
    """A list of users."""

    users: list[User]
    next_cursor: str | None


class ApiKey(BaseModel):
    """An API key, without the key itself. ``username`` is null if it does not belong to a user.

    ``created_by`` is ``user:<id>``, ``key:<id>``, ``operator``, or ``open`` if access was open.
    """

    id: str
    prefix: str
    name: str
    username: str | None
    role: Role | None
    scopes: list[Scope]
    stores: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


class CreatedApiKey(ApiKey):
    """A new API key. ``key`` is shown only here."""

    key: str


class ApiKeyPage(BaseModel):
    """A list of API keys."""

    api_keys: list[ApiKey]
    next_cursor: str | None


class Invitation(BaseModel):
    """An open invitation."""

    id: str
    role: Role
    stores: list[str]
    created_at: datetime
    expires_at: datetime


class CreatedInvitation(Invitation):
    """A new invitation. ``url`` and ``token`` are shown only here."""

    url: str
    token: str


class InvitationPage(BaseModel):
    """A list of invitations."""

    invitations: list[Invitation]
    next_cursor: str | None


class PasswordLink(BaseModel):
    """A one-time link that sets a new password."""

    username: str
    url: str
    token: str
    expires_at: datetime
