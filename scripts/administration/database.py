"""What all commands share: how they find the database, and how they report errors."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, NoReturn, ParamSpec, TypeVar

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError

from shared.errors import ShelfsightError, StoreAway, StoreMisconfigured
from shared.settings import Mongo, explain
from shared.storage.indexes import IndexConflict
from shared.storage.migrations.errors import Locked, MigrationError
from shared.storage.mongo import Db, connect
from shared.storage.mongo_errors import describe

if TYPE_CHECKING:
    from scripts.local.installation import Installation

FAILED: Final = 1
UNAVAILABLE: Final = 3
LOCKED: Final = 4
_DATA: Final = "scripts.administration.data"
P = ParamSpec("P")
Command = TypeVar("Command", bound=Callable[..., None])


class CommandFailed(Exception):
    """A command cannot do what it was asked for. The message is the sentence for the operator."""


def data_option(command: Command) -> Command:
    """Decorate the function of the group or of a command: add the option ``--data``.

    It can be given before and after the name of the command. If it is given more than once, the last one counts.
    """

    def keep(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
        if value is not None:
            context.meta[_DATA] = value  # the contexts of the group and of the command share ``meta``

    description = "Data folder of an installation that scripts/start started (see scripts/admin --help)."
    option = click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help=description, expose_value=False, callback=keep)
    return option(command)


def with_database(command: Callable[Concatenate[Db, P], None]) -> Callable[P, None]:
    """Decorate the function of a command: add the option ``--data``, and pass the database as the first argument.

    Errors end the program with a sentence and an exit code: ``UNAVAILABLE`` if MongoDB does not respond, ``LOCKED`` if
    another process holds the lock of the migrations, and ``FAILED`` for any other error.
    """

    @data_option
    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        with reported_errors(), opened_database() as db:
            command(db, *args, **kwargs)

    return wrapper


@contextmanager
def opened_database() -> Iterator[Db]:
    """Connect to the database that the command line names, for the duration of the body.

    :raises click.UsageError: when the folder contains no installation.
    """
    db = connect(_find_mongo(named_folder()), app="admin")
    try:
        yield db
    finally:
        db.client.close()


def named_folder() -> Path | None:
    """Return the folder in the option ``--data`` of the running command; None if it was not given."""
    folder: Path | None = click.get_current_context().meta.get(_DATA)
    return folder


@contextmanager
def reported_errors() -> Iterator[None]:
    """End the program with a sentence and an exit code if the body raises an expected error; see ``with_database``."""
    try:
        yield
    except (ValidationError, SettingsError) as error:
        _exit(FAILED, explain(error))
    except StoreAway as error:
        _exit(FAILED if isinstance(error, StoreMisconfigured) else UNAVAILABLE, _with_cause(error))
    except Locked as error:
        _exit(LOCKED, str(error))
    except IndexConflict as error:  # its message contains the cause
        _exit(FAILED, str(error))
    except (ShelfsightError, MigrationError, CommandFailed) as error:
        _exit(FAILED, _with_cause(error))


def _with_cause(error: Exception) -> str:
    return f"{error} Cause: {describe(error.__cause__)}" if error.__cause__ is not None else str(error)


def _exit(code: int, sentence: str) -> NoReturn:
    click.echo(f"error: {sentence}", err=True)
    sys.exit(code)


def _find_mongo(data: Path | None) -> Mongo:
    """Return the settings of the database; see the help of the group for the rules.

    :raises click.UsageError: when the folder contains no installation.
    """
    mongo = Mongo()
    if data is None and "url" in mongo.model_fields_set:
        return mongo
    with find_installation(data) as installation:
        url, variables = installation.mongodb_url(), installation.variables
    # The installation does not use the variables of this shell, but those that were saved when it was started.
    return Mongo(url=url, database=variables.get("MONGODB_DATABASE") or Mongo.model_fields["database"].default)


@contextmanager
def find_installation(data: Path | None) -> Iterator["Installation"]:
    """Return the installation in a data folder. Errors of the body that it causes become errors of the command line, too.

    :param data: the folder; None stands for the folder "data" of this clone.
    :raises click.UsageError: when the folder contains no installation, or one that belongs to another user.
    """
    try:
        from scripts.local.installation import DEFAULT_DATA, load_installation  # noqa: PLC0415 -- the web image does not contain scripts.local
        from scripts.local.servers.errors import Unusable  # noqa: PLC0415 -- the web image does not contain scripts.local
    except ImportError as error:
        raise click.UsageError("There is no scripts/start here, so MONGODB_URL must be set, and --data cannot be used.") from error
    folder = data or DEFAULT_DATA
    try:
        installation = load_installation(folder.resolve())
        if installation is None:
            raise click.UsageError(f"Nothing was started with the data folder {folder} yet. Name the folder with --data, or set MONGODB_URL.")
        yield installation
    except Unusable as error:
        raise click.UsageError(str(error)) from error
    except PermissionError as error:
        raise click.UsageError(f"The data folder {folder} belongs to another user. Run this command as that user.") from error
