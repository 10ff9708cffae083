"""Finds the migrations: the modules ``m<number>_<name>`` of this package."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from shared.storage import migrations
from shared.storage.migrations.errors import Inconsistent
from shared.storage.migrations.run import Run

_NAME: Final = re.compile(r"m(\d{4})_[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration. ``name`` is the name of its module, which begins with the number ``version``."""

    version: int
    name: str
    summary: str
    apply: Callable[[Run], None]


def find_migrations() -> tuple[Migration, ...]:
    """Return all migrations of this code in ascending order of their versions, which are 1, 2, 3 and so on."""
    names = sorted(name for _, name, _ in pkgutil.iter_modules(migrations.__path__) if _NAME.fullmatch(name))
    found = []
    for name in names:
        module = importlib.import_module(f"{migrations.__name__}.{name}")
        found.append(Migration(int(name[1:5]), name, module.SUMMARY, module.apply))
    check_versions(found)
    return tuple(found)


def check_versions(found: Sequence[Migration]) -> None:
    """Check that the versions are 1, 2, 3 and so on.

    :raises Inconsistent: when a version is missing, occurs twice, or is out of order.
    """
    versions = [migration.version for migration in found]
    if versions != list(range(1, len(found) + 1)):
        raise Inconsistent(f"The migrations of this code must have the versions 1 to {len(found)}, but have {versions}.")


def select_pending(known: Sequence[Migration], recorded: Iterable[tuple[int, str, bool]]) -> list[Migration]:
    """Return the migrations that must be run on a database, in the order in which they must be run.

    Migrations that only the database knows are ignored: newer code has run them.

    :param known: the migrations of this code.
    :param recorded: the migrations that the database records, each with its version, its name, and whether it is done.
    :raises Inconsistent: when the database records another migration under a version of this code, or a later migration
        is done although an earlier one is not.
    """
    names = {version: name for version, name, _ in recorded}
    done = {version for version, _, is_done in recorded if is_done}
    for migration in known:
        recorded_name = names.get(migration.version, migration.name)
        if recorded_name != migration.name:
            raise Inconsistent(
                f"The database records migration {migration.version} as {recorded_name}, but in this code it is {migration.name}. "
                "Check that the database and the code belong together."
            )
    pending = [migration for migration in known if migration.version not in done]
    if pending and done and max(done) > pending[0].version:
        raise Inconsistent(
            f"The database records migration {max(done)} as done, but not migration {pending[0].version}, which precedes it. "
            "Check that the database and the code belong together."
        )
    return pending
