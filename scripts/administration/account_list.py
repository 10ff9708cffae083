"""The command ``list``."""

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import click

from scripts.administration import key_rotation
from scripts.administration.database import with_database
from scripts.administration.output import describe_rights, json_option, print_columns, print_json_lists
from shared.accounts import api_keys, users
from shared.accounts.api_keys import ApiKey
from shared.accounts.permissions import OPEN
from shared.accounts.users import User
from shared.storage.mongo import Db
from web.accounts import serializers

_PAGE: Final = 500
Account = TypeVar("Account", User, ApiKey)


@click.command("list")
@json_option
@with_database
def list_accounts(db: Db, *, as_json: bool) -> None:
    """List all users, the newest first, and all API keys, by id: their rights, when keys expire and were last used.

    Keys themselves are not stored, so they cannot be shown. The time of the last use is stored at most once a minute. The
    keys that sign tokens and URLs are listed, too: their ids and their age. "rotate-keys" replaces them.

    \b
    Examples:
      scripts/admin list
      scripts/admin list --json | jq -r '.api_keys[] | select(.last_used_at == null) | .id'

    The JSON object has the members users and api_keys, whose elements are those of GET /users and GET /api_keys, and
    signing_keys, whose elements have id, created_at (or null) and signs. It contains all of them; the command reads and
    prints 500 at a time. It is complete if the exit code is 0.

    \b
    Exit codes:
      0  everything was listed
      1  MongoDB refused an operation
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    if as_json:
        print_json_lists(
            {
                "users": (serializers.user(user) for user in _list_users(db)),
                "api_keys": (serializers.api_key(key, username) for key, username in _list_keys(db)),
                "signing_keys": key_rotation.list_keys(),
            }
        )
        return
    click.echo("Users:")
    for user in _list_users(db):
        _print_user(user)
    click.echo("API keys:")
    for key, username in _list_keys(db):
        _print_key(key, username)
    for position, signing_key in enumerate(key_rotation.list_keys()):
        if position == 0:
            click.echo("Signing keys:")
        print_columns(f"  {signing_key['id']}", key_rotation.describe_key(signing_key))


def _list_users(db: Db) -> Iterator[User]:
    for page in _pages(lambda after: users.list_page(db, OPEN.rights, after, _PAGE)):
        yield from page


def _list_keys(db: Db) -> Iterator[tuple[ApiKey, str | None]]:
    """Return the keys with the names of their users."""
    for page in _pages(lambda after: api_keys.list_page(db, {}, after, _PAGE)):
        names = users.find_names(db, {key.user_id for key in page if key.user_id is not None})
        for key in page:
            yield key, names.get(key.user_id or "")


def _pages(read: Callable[[str | None], list[Account]]) -> Iterator[list[Account]]:
    after = None
    while page := read(after):
        yield page
        after = page[-1].id


def _print_user(user: User) -> None:
    notes = ["disabled" if user.disabled else "", "no password yet" if user.password_hash is None else ""]
    print_columns(f"  {user.username:<20}", describe_rights(user.rights), user.email or "", *notes)


def _print_key(key: ApiKey, username: str | None) -> None:
    expiry = "" if key.expires_at is None else f"{'expired' if key.has_expired else 'expires'} {key.expires_at:%Y-%m-%d %H:%M} UTC"
    use = "never used" if key.last_used_at is None else f"last used {key.last_used_at:%Y-%m-%d %H:%M} UTC"
    print_columns(f"  {key.id}", key.name, f"user {username}" if username else "", describe_rights(key.rights), expiry, use)
