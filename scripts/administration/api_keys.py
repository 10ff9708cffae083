"""The commands that create and revoke API keys."""

from datetime import datetime

import click

from scripts.administration import changes
from scripts.administration.database import CommandFailed, with_database
from scripts.administration.output import describe_rights, json_option, print_json, print_secret
from scripts.administration.parameters import EXPIRY, KEY_ID, KEY_NAME, ROLE, SCOPE, STORE
from shared.accounts import api_keys, users
from shared.accounts.api_keys import NewKey
from shared.accounts.permissions import OPERATOR, ROLES, Rights, Role, Scope
from shared.accounts.users import User
from shared.allowed_stores import stores_from_list, stores_to_list
from shared.storage.mongo import Db
from web.accounts import serializers


@click.command()
@click.option("--name", type=KEY_NAME, required=True, help="What the key is for. It is shown in lists.")
@click.option("--role", type=ROLE, help="Give the key the scopes of a role.")
@click.option("--scope", "scopes", type=SCOPE, multiple=True, help="Give the key single scopes instead. Repeat it for several scopes.")
@click.option("--stores", type=STORE, multiple=True, required=True, metavar="STORE", help="Name of a store in which the key counts, or '*' for all stores. Repeat it for several stores.")
@click.option("--user", "username", metavar="NAME", help="The user that the key belongs to. Default: none; the key is an account of its own.")
@click.option("--expires", "expires_at", type=EXPIRY, metavar="TIME", help="A time, such as 2030-06-30T00:00:00Z, or days or hours from now, such as 90d or 12h. Default: never.")
@json_option
@with_database
def create_key(
    db: Db, name: str, role: Role | None, scopes: tuple[Scope, ...], stores: tuple[str, ...], username: str | None, expires_at: datetime | None, *, as_json: bool
) -> None:
    """Create an API key for a script. Scripts send it as "Authorization: Bearer KEY", and never need to refresh it.

    The key is printed alone on standard output, and the explanation on standard error. It is shown only this once,
    because the database contains only a digest of it. Give a key no more than it needs: a camera that uploads needs only
    the scope images:upload, and only its store. "create-user --help" describes the roles.

    A key of a user never has more rights than the user has at the time, and is refused while the user is disabled. A key
    without a user is an account of its own, which outlives the people who use it.

    A name of a store can contain commas, so --stores takes one name. Write '*' in quotation marks, because the shell
    replaces it by the names of files otherwise.

    \b
    Examples:
      KEY=$(scripts/admin create-key --name camera-7 --scope images:upload --stores 'Main Street')
      scripts/admin create-key --name report --role viewer --stores '*' --user alice --expires 90d
      scripts/admin --data /srv/shelfsight create-key --name deploy --role admin --stores '*' --json | jq -r .key

    The JSON object is that of POST /api_keys: the members of the key, and "key".

    \b
    Exit codes:
      0  the key was created
      1  there is no such user, or the user is disabled or has fewer rights than the key would have
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    if (role is None) == (not scopes):
        raise click.UsageError("Give either --role or --scope.")
    rights = Rights(frozenset(scopes) if role is None else ROLES[role], stores_from_list(stores))
    owner = None if username is None else users.get(db, username)
    owner_name = owner.username if owner else None
    if owner is not None:
        _check_owner(owner, rights)
    made, text = api_keys.create(db, NewKey(name, role, rights, owner.id if owner else None, OPERATOR, expires_at))
    details = {"name": made.name, "role": made.role, "scopes": sorted(rights.scopes), "stores": stores_to_list(rights.stores), "username": owner_name}
    changes.record(db, "api_key.created", f"key:{made.id}", details)
    if as_json:
        print_json(serializers.api_key(made, owner_name) | {"key": text})
        return
    until = f"{made.expires_at:%Y-%m-%d %H:%M} UTC" if made.expires_at else "it is revoked"
    explanation = f"The API key {made.id} was created ({describe_rights(rights)}). It is valid until {until}, and is not shown again:"
    print_secret(text, explanation)


@click.command()
@click.argument("key_id", type=KEY_ID, metavar="ID")
@json_option
@with_database
def revoke_key(db: Db, key_id: str, *, as_json: bool) -> None:
    """Delete an API key. It is refused within five seconds. "scripts/admin list" shows the ids of the keys.

    \b
    Examples:
      scripts/admin revoke-key 4f8zq0c2m1x7k9ab

    The JSON object is the one that GET /api_keys has contained.

    \b
    Exit codes:
      0  the key was deleted
      1  there is no such key
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    deleted = api_keys.delete(db, key_id, {})
    changes.record(db, "api_key.deleted", f"key:{deleted.id}", {"name": deleted.name})
    if as_json:
        owner = users.find_by_id(db, deleted.user_id or "")
        print_json(serializers.api_key(deleted, owner.username if owner else None))
    else:
        click.echo(f"The API key {deleted.id} ({deleted.name}) was deleted. It is refused within five seconds.")


def _check_owner(owner: User, rights: Rights) -> None:
    """Refuse a key that would not work as it was asked for.

    :raises CommandFailed: when the user is disabled, or has fewer rights than the key would have.
    """
    if owner.disabled:
        raise CommandFailed(f"The user {owner.username} is disabled, so the key would be refused; run scripts/admin enable-user first.")
    if not owner.rights.covers(rights):
        raise CommandFailed(
            f"The user {owner.username} ({describe_rights(owner.rights)}) has fewer rights than the key would have; give the key fewer, or the user more."
        )
