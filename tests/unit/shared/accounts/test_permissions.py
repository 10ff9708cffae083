"""What scopes permit, as it is shown to people."""

import pytest

from shared.accounts.permissions import SCOPE_MEANINGS, Scope


@pytest.mark.parametrize(
    ("scope", "operations"),
    [
        ("images:write", ["Change and delete batches", "cancel batches", "process images again"]),
        ("admin", ["audit log", "pause work queues", "workers", "retry failed images"]),
    ],
)
def test_the_meaning_of_a_scope_names_its_operations(scope: Scope, operations: list[str]) -> None:
    assert [operation for operation in operations if operation not in SCOPE_MEANINGS[scope]] == []
