"""The commands that create and change users."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from scripts.administration import changes, new_passwords
from scripts.administration.database import CommandFailed, with_database
from scripts.administration.output import describe_rights, json_option, print_json, print_secret
from scripts.administration.parameters import EMAIL, ROLE, STORE, URL, USERNAME
from shared.accounts import one_time_links, users
from shared.accounts.passwords import PasswordHasher
from shared.accounts.permissions import OPEN, OPERATOR, ROLES, Rights, Role
from shared.accounts.users import Change, NewUser, User
from shared.allowed_stores import stores_from_list, stores_to_list
from shared.storage.indexes import find_missing_indexes
from shared.storage.mongo import Db
from web.accounts import serializers

Command = TypeVar("Command", bound=Callable[..., None])


def _url_option(command: Command) -> Command:
    description = "Address of the service, such as https://shelf.example, to print a whole link. Default: the setting PUBLIC_URL."
    return click.option("--url", type=URL, metavar="URL", envvar="PUBLIC_URL", help=description)(command)


@click.command()
@click.argument("name", type=USERNAME)
@click.option("--email", type=EMAIL, metavar="ADDRESS", help="Email address, with which the user can sign in, too.")
@click.option("--role", type=ROLE, default="viewer", show_default=True, help="What the user may do.")
@click.option("--stores", type=STORE, multiple=True, metavar="STORE", help="Name of a store that the user may see, or '*' for all stores. Repeat it for several stores. Default: none.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.option("--link", is_flag=True, help="Set no password, and print a one-time link with which the user sets it.")
@_url_option
@json_option
@with_database
def create_user(
    db: Db, name: str, email: str | None, role: Role, stores: tuple[str, ...], url: str | None, *, password_stdin: bool, link: bool, as_json: bool
) -> None:
    """Create a user, for example the first administrator.

    On a terminal, the command asks for the password twice. It needs 15 characters or more, and must not be a common
    password; several words are good. With --link, and also without a terminal, the user has no password yet, and the
    command prints a one-time link with which the user sets it within 24 hours. With --url, this is the address of a page;
    without it, a token to send with the new password (POST /reset_password {"token", "new_password"}). It is printed alone
    on standard output, and the explanation on standard error.

    \b
    The roles:
      viewer    sees images and exports
      tagger    also tags and annotates images
      uploader  also uploads, changes and deletes images
      admin     everything, also users and keys

    A user may do this only in their stores. A name of a store can contain commas, so --stores takes one name. Write '*' in
    quotation marks, because the shell replaces it by the names of files otherwise.

    \b
    Examples:
      scripts/admin create-user alice --role admin --stores '*'
      scripts/admin create-user bob --email bob@example.com --role tagger --stores 'Main Street' --stores 'Harbour, East'
      scripts/admin create-user carol --role viewer --stores '*' --link --url https://shelf.example
      scripts/admin create-user dave --stores '*' --password-stdin < password.txt

    \b
    The members of the JSON object: those of an element of GET /users, and
      reset_link  token, url (null without --url) and expires_at of the one-time link; null if a password was set

    \b
    Exit codes:
      0  the user was created
      1  the password is not acceptable, or the name or the email address is already taken
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    if password_stdin and link:
        raise click.UsageError("Give either --password-stdin or --link.")
    _require_unique_names(db)
    rights = Rights(ROLES[role], stores_from_list(stores))
    password = None
    if password_stdin:
        password = new_passwords.read_line(name, email)
    elif not link and new_passwords.is_terminal():
        password = new_passwords.ask(name, email)
    password_hash = None if password is None else PasswordHasher(max_parallel=1, max_wait_s=1.0).hash(password)
    user = users.create(db, NewUser(name, email, role, rights, password_hash))
    changes.record(db, "user.created", f"user:{user.id}", {"username": user.username, "role": user.role, "stores": stores_to_list(rights.stores)})
    offered = _offer_new_password(db, user, url) if password is None else None
    if as_json:
        print_json(serializers.user(user) | {"reset_link": offered})
        return
    created = f"The user {user.username} was created ({describe_rights(user.rights)})."
    if offered is None:
        click.echo(created)
    else:
        print_secret(offered["url"] or offered["token"], f"{created} {_explain_link(user, offered)}")


@click.command()
@click.argument("name")
@click.argument("role", type=ROLE)
@json_option
@with_database
def set_role(db: Db, name: str, role: Role, *, as_json: bool) -> None:
    """Change the role of a user: viewer, tagger, uploader or admin. "create-user --help" describes the roles.

    It takes effect within five seconds, also for the keys of the user, which never have more rights than the user. The
    role of the last administrator cannot be changed.

    \b
    Examples:
      scripts/admin set-role bob uploader
      scripts/admin set-role bob uploader --json | jq .scopes

    The JSON object is an element of GET /users.

    \b
    Exit codes:
      0  the user has this role
      1  there is no such user, or it is the last administrator
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    _change(db, name, Change(role=role), as_json=as_json)


@click.command()
@click.argument("name")
@click.argument("stores", nargs=-1, type=STORE, metavar="[STORE]...")
@click.option("--none", "no_stores", is_flag=True, help="Allow the user no store.")
@json_option
@with_database
def set_stores(db: Db, name: str, stores: tuple[str, ...], *, no_stores: bool, as_json: bool) -> None:
    """Replace the list of the stores that a user may see. '*' stands for all stores.

    It takes effect within five seconds, also for the keys of the user. The last administrator who has all stores keeps
    them. Write '*' in quotation marks, because the shell replaces it by the names of files otherwise.

    \b
    Examples:
      scripts/admin set-stores bob 'Main Street' 'Harbour, East'
      scripts/admin set-stores alice '*'
      scripts/admin set-stores carol --none

    The JSON object is an element of GET /users.

    \b
    Exit codes:
      0  the user has these stores
      1  there is no such user, or it is the last administrator who has all stores
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    if bool(stores) == no_stores:
        raise click.UsageError("Name at least one store, or give '*' for all stores, or --none.")
    _change(db, name, Change(stores=stores_to_list(stores_from_list(stores))), as_json=as_json)


@click.command()
@click.argument("name")
@json_option
@with_database
def disable_user(db: Db, name: str, *, as_json: bool) -> None:
    """Disable a user: end all sessions, and refuse the password and all keys of the user.

    It takes effect within five seconds. What the user has uploaded and tagged stays. The last administrator cannot be
    disabled. "enable-user" enables the user again, with the same password and the same keys.

    \b
    Examples:
      scripts/admin disable-user bob

    The JSON object is an element of GET /users.

    \b
    Exit codes:
      0  the user is disabled
      1  there is no such user, or it is the last administrator
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    _change(db, name, Change(disabled=True), as_json=as_json)


@click.command()
@click.argument("name")
@json_option
@with_database
def enable_user(db: Db, name: str, *, as_json: bool) -> None:
    """Enable a user that "disable-user" has disabled. The password and the keys of the user are accepted again.

    \b
    Examples:
      scripts/admin enable-user bob

    The JSON object is an element of GET /users.

    \b
    Exit codes:
      0  the user is enabled
      1  there is no such user
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    _change(db, name, Change(disabled=False), as_json=as_json)


@click.command()
@click.argument("name")
@_url_option
@json_option
@with_database
def reset_password(db: Db, name: str, url: str | None, *, as_json: bool) -> None:
    """Print a one-time link with which a user can set a new password.

    It is valid for 24 hours. Earlier links of this user stop working. The present password stays valid until the link is
    used; then, all sessions of the user end. To lock the user out at once, use "disable-user".

    With --url, the address of a page is printed; without it, a token to send with the new password (POST /reset_password
    {"token", "new_password"}). It is printed alone on standard output, and the explanation on standard error.

    \b
    Examples:
      scripts/admin reset-password bob --url https://shelf.example
      TOKEN=$(scripts/admin reset-password bob)

    The JSON object has the members username, token, url (null without --url) and expires_at.

    \b
    Exit codes:
      0  the link was made
      1  there is no such user
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    user = users.get(db, name)
    offered = _offer_new_password(db, user, url)
    if as_json:
        print_json({"username": user.username, **offered})
    else:
        print_secret(offered["url"] or offered["token"], _explain_link(user, offered))


def _change(db: Db, name: str, wanted: Change, *, as_json: bool) -> None:
    before, after = users.change(db, name, wanted, OPEN.rights)
    changes.record(db, "user.changed", f"user:{after.id}", users.describe_change(before, after))
    if as_json:
        print_json(serializers.user(after))
    else:
        click.echo(f"The user {after.username} is {'disabled' if after.disabled else 'enabled'} ({describe_rights(after.rights)}).")


def _offer_new_password(db: Db, user: User, url: str | None) -> dict[str, Any]:
    """Create a one-time link, and return its members for the output. Without an address, its URL is None."""
    link, token = one_time_links.offer_new_password(db, user, OPERATOR)
    changes.record(db, "reset_link.created", f"user:{user.id}", {"username": user.username})
    shown: dict[str, Any] = {"token": token, "url": None}
    if url:
        shown = serializers.one_time_link(url.rstrip("/"), serializers.RESET_PATH, "token", token)
    return {**shown, "expires_at": link.expires_at}


def _explain_link(user: User, offered: dict[str, Any]) -> str:
    means = "this link" if offered["url"] else 'this token (POST /reset_password {"token", "new_password"})'
    return f"With {means}, {user.username} can set a new password once, until {offered['expires_at']:%Y-%m-%d %H:%M} UTC. It is not shown again:"


def _require_unique_names(db: Db) -> None:
    """Refuse to create a user if the database cannot yet make sure that user names are unique.

    :raises CommandFailed: when an index of the users is missing.
    """
    if any(index.collection == "users" for index in find_missing_indexes(db)):
        raise CommandFailed("The database is not up to date; run scripts/admin migrate first.")
