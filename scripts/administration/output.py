"""What the commands about users and keys print."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import click
import orjson

from shared.accounts.permissions import Rights
from shared.accounts.principals import role_of
from shared.allowed_stores import stores_to_list
from web.http.json_options import JSON_OPTIONS

Command = TypeVar("Command", bound=Callable[..., None])
_SEPARATOR: Final = "  "


def json_option(command: Command) -> Command:
    """Decorate the function of a command: add the option ``--json``, which is passed as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def print_json(members: Mapping[str, Any]) -> None:
    """Print one JSON object in one line. Times have the form of the HTTP API."""
    click.echo(_dump(members))


def print_json_lists(lists: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Print one JSON object whose members are lists, with a line for each element. No list is held in memory."""
    for position, (name, elements) in enumerate(lists.items()):
        click.echo(f"{', ' if position else '{'}{_dump(name)}: [", nl=False)
        for number, element in enumerate(elements):
            click.echo(f"{',' if number else ''}\n{_dump(element)}", nl=False)
        click.echo("\n]", nl=False)
    click.echo("}")


def print_secret(secret: str, explanation: str) -> None:
    """Print a secret alone on standard output, so that a script can capture it, and the explanation on standard error."""
    click.echo(explanation, err=True)
    click.echo(secret)


def print_columns(*columns: str) -> None:
    """Print a line of texts. Characters that a terminal would not print are shown as spaces."""
    line = _SEPARATOR.join(column for column in columns if column)
    click.echo("".join(character if character.isprintable() else " " for character in line).rstrip())


def describe_rights(rights: Rights) -> str:
    """Return the role, or else the scopes, and the stores of rights."""
    role = role_of(rights.scopes)
    return f"{role or ' '.join(sorted(rights.scopes))}, {describe_stores(rights)}"


def describe_stores(rights: Rights) -> str:
    """Return the stores of rights."""
    if rights.stores is None:
        return "all stores"
    return "stores: " + ", ".join(stores_to_list(rights.stores)) if rights.stores else "no stores"


def _dump(value: Any) -> str:
    return orjson.dumps(value, option=JSON_OPTIONS).decode()
