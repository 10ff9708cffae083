"""Which migrations are run on a database, and in which order."""

import pytest

from shared.storage.migrations.errors import Inconsistent
from shared.storage.migrations.registry import Migration, check_versions, find_migrations, select_pending
from shared.storage.migrations.run import Run


def nothing(_: Run) -> None:
    """Change nothing."""


def migrations(*versions: int) -> list[Migration]:
    return [Migration(version, f"m{version:04}_test", "a test", nothing) for version in versions]


def recorded(done: list[int], unfinished: tuple[int, ...] = ()) -> list[tuple[int, str, bool]]:
    return [(version, f"m{version:04}_test", version in done) for version in (*done, *unfinished)]


def pending(known: int, done: list[int], unfinished: tuple[int, ...] = ()) -> list[int]:
    found = select_pending(migrations(*range(1, known + 1)), recorded(done, unfinished))
    return [migration.version for migration in found]


def test_the_migrations_of_this_code_have_names_with_their_versions_and_a_summary() -> None:
    found = find_migrations()
    assert [migration.name[:5] for migration in found] == [f"m{migration.version:04}" for migration in found]
    assert all(migration.summary for migration in found)
    assert found[0].name == "m0001_accounts"


@pytest.mark.parametrize("versions", [[2], [1, 3], [1, 1], [2, 1], [0, 1]])
def test_versions_must_be_consecutive_and_begin_with_1(versions: list[int]) -> None:
    with pytest.raises(Inconsistent):
        check_versions(migrations(*versions))


def test_a_new_database_needs_all_migrations_in_ascending_order() -> None:
    assert pending(3, []) == [1, 2, 3]


def test_only_migrations_that_are_not_done_are_pending() -> None:
    assert pending(3, [1]) == [2, 3]
    assert pending(3, [1, 2, 3]) == []


def test_a_migration_that_was_interrupted_or_failed_is_pending() -> None:
    assert pending(3, [1], unfinished=(2,)) == [2, 3]


def test_migrations_that_only_the_database_knows_are_ignored() -> None:
    assert pending(2, [1, 2, 3, 4]) == []
    assert pending(2, [1, 2], unfinished=(3,)) == []


def test_a_gap_in_the_database_is_refused() -> None:
    with pytest.raises(Inconsistent, match="but not migration 1"):
        pending(3, [2])
    with pytest.raises(Inconsistent, match="but not migration 2"):
        pending(2, [1, 3], unfinished=(2,))


def test_a_database_with_another_migration_under_the_same_version_is_refused() -> None:
    with pytest.raises(Inconsistent, match="m0001_other"):
        select_pending(migrations(1), [(1, "m0001_other", True)])
