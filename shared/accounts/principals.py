"""Makes principals from stored users and keys, with the rights that these have now."""

from collections.abc import Iterable

from shared.accounts import api_keys, users
from shared.accounts.api_keys import ApiKey
from shared.accounts.permissions import OPEN, OPERATOR, ROLES, KeyInfo, Principal, Rights, Role, Scope
from shared.accounts.users import User
from shared.storage.mongo import Db


def from_user(user: User, session_id: str) -> Principal:
    """Return the principal of a signed-in user."""
    actor = f"user:{user.id}"
    return Principal(actor, actor, user.role, user.rights, user.username, user.id, session_id)


def from_key(key: ApiKey, owner: User | None) -> Principal:
    """Return the principal of an API key.

    :param owner: the user that owns the key; None if the key has no user.
    """
    actor = f"key:{key.id}"
    info = KeyInfo(key.id, key.name, key.expires_at)
    if owner is None:
        return Principal(actor, actor, role_of(key.rights.scopes), key.rights, key=info)
    rights = key.rights.limited_to(owner.rights)
    return Principal(f"user:{owner.id}", actor, role_of(rights.scopes), rights, owner.username, owner.id, key=info)


def role_of(scopes: Iterable[Scope]) -> Role | None:
    """Return the role that is a name for exactly these scopes, or None."""
    found = frozenset(scopes)
    return next((role for role, of_role in ROLES.items() if of_role == found), None)


def rights_of(db: Db, actor: str) -> Rights | None:
    """Return the rights that an actor has now; None if it no longer exists or is disabled.

    :raises StoreAway: when MongoDB does not respond.
    """
    if actor in {OPERATOR, OPEN.actor}:
        return OPEN.rights
    kind, _, actor_id = actor.partition(":")
    if kind == "user":
        user = users.find_by_id(db, actor_id)
        return None if user is None or user.disabled else user.rights
    principal = find_by_key(db, actor_id)
    return None if principal is None else principal.rights


def name_of(db: Db, actor: str) -> str:
    """Return the name under which what an actor does is shown: the name of the user, also if a key of the user did it.

    If the user does not exist, or the key has none, it is ``actor`` itself.

    :raises StoreAway: when MongoDB does not respond.
    """
    kind, _, user_id = actor.partition(":")
    if kind == "key":
        key = api_keys.find(db, user_id)
        if key is None or key.user_id is None:
            return actor
        user_id = key.user_id
    elif kind != "user":
        return actor
    return users.find_names(db, [user_id]).get(user_id, actor)


def find_by_key(db: Db, key_id: str) -> Principal | None:
    """Return the principal of a key; None if the key or its user does not exist, is disabled, or has expired."""
    key = api_keys.find(db, key_id)
    return None if key is None else with_owner(db, key)


def with_owner(db: Db, key: ApiKey) -> Principal | None:
    """Return the principal of a key; None if its user does not exist or is disabled."""
    if key.user_id is None:
        return from_key(key, None)
    owner = users.find_by_id(db, key.user_id)
    return None if owner is None or owner.disabled else from_key(key, owner)
