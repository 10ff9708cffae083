"""The passwords of the embedded servers: generated once, replaced if lost, and readable by their owner only."""

import os
from pathlib import Path

import pytest

from scripts.local.servers.credentials import check_permissions, create_credentials, load_credentials
from scripts.local.servers.errors import Unusable


def test_passwords_are_generated_once_and_differ_from_each_other_and_between_folders(tmp_path: Path) -> None:
    first = create_credentials(tmp_path / "one")
    assert create_credentials(tmp_path / "one") == load_credentials(tmp_path / "one") == first
    second = create_credentials(tmp_path / "two")
    words = [word for found in (first, second) for word in (found.member_key, found.mongodb_password, found.redis_password)]
    assert len(set(words)) == 6
    assert all(len(word) == 48 and word.isalnum() for word in words)


def test_only_their_owner_may_read_them_even_if_an_umask_or_an_older_file_says_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    before = os.umask(0)
    try:
        create_credentials(folder)
        (folder / "redis.conf").chmod(0o666)
        (folder / "mongodb.new").touch()
        (folder / "mongodb.key").unlink()
        create_credentials(folder)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir()} == {"mongodb.key", "mongodb.password", "redis.conf"}


@pytest.mark.parametrize("name", ["mongodb.key", "mongodb.password", "redis.conf"])
@pytest.mark.parametrize("content", [b"", b"requirepass ", b"\0" * 49, b"\xff", b"0" * 47])
def test_a_lost_or_damaged_file_is_generated_again_and_the_others_are_kept(tmp_path: Path, name: str, content: bytes) -> None:
    before = create_credentials(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unusable, match="damaged"):
        load_credentials(tmp_path)
    after = create_credentials(tmp_path)
    changed = [old != new for old, new in zip((before.member_key, before.mongodb_password, before.redis_password), (after.member_key, after.mongodb_password, after.redis_password), strict=True)]
    assert changed.count(True) == 1


def test_the_configuration_of_redis_contains_the_password_only(tmp_path: Path) -> None:
    credentials = create_credentials(tmp_path)
    assert credentials.redis_config.read_text() == f"requirepass {credentials.redis_password}\n"


def test_the_description_of_the_object_contains_no_password(tmp_path: Path) -> None:
    credentials = create_credentials(tmp_path)
    assert not [word for word in (credentials.member_key, credentials.mongodb_password, credentials.redis_password) if word in repr(credentials)]


def test_a_file_system_without_permissions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat
    readable_by_all = os.stat_result((stat(tmp_path).st_mode | 0o077, *stat(tmp_path)[1:]))
    monkeypatch.setattr(Path, "stat", lambda *_arguments, **_options: readable_by_all)
    with pytest.raises(Unusable, match="does not support file permissions"):
        check_permissions(tmp_path)


def test_a_file_system_with_permissions_is_accepted_and_nothing_is_left(tmp_path: Path) -> None:
    check_permissions(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_passwords_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="scripts/start generates them"):
        load_credentials(tmp_path / "none")
