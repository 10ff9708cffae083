"""Scopes, roles, and the rights of the principal of a request.

A scope permits a kind of operation. A role is a name for a set of scopes, and has no other meaning. Rights are scopes
together with the stores in which they count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args

from shared.allowed_stores import AllowedStores, intersect_stores

Scope = Literal[
    "images:read", "images:upload", "images:write", "originals:read", "tags:write", "exports:read", "webhooks:write",
    "metrics:read", "admin",
]  # fmt: skip
Role = Literal["viewer", "tagger", "uploader", "admin"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
SCOPE_MEANINGS: Final[Mapping[Scope, str]] = {
    "images:read": "See batches and images with their results, download files, and inspect single images.",
    "images:upload": "Upload batches of images.",
    "images:write": "Change and delete batches and images, cancel batches, and process images again.",
    "originals:read": "Download originals in stores whose policy is to blur images.",
    "tags:write": "Create, change and delete tags and annotations.",
    "exports:read": "Create and download exports.",
    "webhooks:write": "Create, change and delete webhooks.",
    "metrics:read": "Read the metrics.",
    "admin": "Manage users, invitations, the API keys of others and the service, read the audit log, see and pause work queues, see workers, and see and retry failed images.",
}
"""What each scope permits."""
_VIEWER: Final[frozenset[Scope]] = frozenset({"images:read", "exports:read"})
_TAGGER: Final[frozenset[Scope]] = _VIEWER | {"tags:write"}
_UPLOADER: Final[frozenset[Scope]] = _TAGGER | {"images:upload", "images:write", "webhooks:write"}
ROLES: Final[Mapping[Role, frozenset[Scope]]] = {
    "viewer": _VIEWER,
    "tagger": _TAGGER,
    "uploader": _UPLOADER,
    "admin": frozenset(SCOPES),
}


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do, and in which stores."""

    scopes: frozenset[Scope]
    stores: AllowedStores

    def covers(self, other: "Rights") -> bool:
        """Return whether these rights include all of the rights ``other``."""
        if not other.scopes <= self.scopes:
            return False
        return self.stores is None or (other.stores is not None and other.stores <= self.stores)

    def limited_to(self, other: "Rights") -> "Rights":
        """Return the rights that both these rights and ``other`` include."""
        return Rights(self.scopes & other.scopes, intersect_stores(self.stores, other.stores))


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The API key with which a request was made. ``expires_at`` is naive UTC; None if the key does not expire."""

    id: str
    name: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request, and what they may do.

    ``account`` owns what the principal creates: ``user:<id>``, ``key:<id>`` for a key without a user, or ``open``.
    ``actor`` is the person or the key itself, in the same form. ``role`` is None for a key with single scopes.
    ``username``, ``user_id`` and ``session_id`` are None for a key without a user; ``session_id`` is None for any key.
    """

    account: str
    actor: str
    role: Role | None
    rights: Rights
    username: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    key: KeyInfo | None = None

    @property
    def stores(self) -> AllowedStores:
        """The stores in which the rights count; None means all stores."""
        return self.rights.stores

    @property
    def by(self) -> str | None:
        """Who has made a change, as it is stored and shown: a user name, ``key:<id>``, or None while access is open."""
        return self.actor if self.username is None and self.key is not None else self.username

    def may(self, scope: Scope) -> bool:
        """Return whether the rights include ``scope``."""
        return scope in self.rights.scopes


OPERATOR: Final = "operator"
"""The actor of what a program on the server does, such as ``scripts/admin``. Whoever can run it has all rights."""
OPEN: Final = Principal("open", "open", "admin", Rights(ROLES["admin"], None))
"""The principal of requests without credentials while access is open."""
SIGNED: Final = Principal("signature", "signature", None, Rights(frozenset({"images:read"}), None))
"""The principal of requests with a signed URL. Its rights count for the one image alone that the signature covers."""
