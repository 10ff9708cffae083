"""The keys that sign access tokens are generated once, and other users cannot read them."""

from pathlib import Path

import pytest

from scripts.local import start
from scripts.local.signing_keys import read_or_create_signing_keys
from shared.settings import Access


def test_keys_are_generated_once_and_are_a_valid_setting(tmp_path: Path) -> None:
    keys = read_or_create_signing_keys(tmp_path)
    assert read_or_create_signing_keys(tmp_path) == keys
    assert len(Access(access="on", signing_keys=keys).parse_signing_keys()) == 1
    assert (tmp_path / "signing_keys").stat().st_mode & 0o777 == 0o600


def test_two_folders_have_different_keys(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert read_or_create_signing_keys(tmp_path) != read_or_create_signing_keys(tmp_path / "other")


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "signing_keys").write_text("{")
    assert Access(access="on", signing_keys=read_or_create_signing_keys(tmp_path)).is_on


def test_a_start_with_access_needs_no_keys_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCESS", "on")
    monkeypatch.delenv("SIGNING_KEYS", raising=False)
    assert start.read_settings().access.is_on
    monkeypatch.setenv("SIGNING_KEYS", "secret")
    with pytest.raises(start.CannotStart, match="SIGNING_KEYS must be a JSON object"):
        start.read_settings()
