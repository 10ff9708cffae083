"""The keys that sign tokens and URLs are generated once, and other users cannot read them."""

import json
from pathlib import Path

import pytest

from scripts.local.installation import Installation
from scripts.local.servers.credentials import create_credentials
from scripts.local.servers.errors import Unusable
from scripts.local.signing_key_setup import create_signing_keys
from shared.accounts.signing_keys import open_signing_keys
from shared.settings import Access
from tests.support.accounts import SIGNING_KEYS


def test_keys_are_generated_once_and_are_a_valid_setting(tmp_path: Path) -> None:
    path = tmp_path / "signing_keys"
    create_signing_keys(path)
    keys = path.read_text()
    create_signing_keys(path)
    assert path.read_text() == keys
    assert len(open_signing_keys(Access(access="on", signing_keys_file=path)).current().secrets) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_folders_have_different_keys(tmp_path: Path) -> None:
    create_signing_keys(tmp_path / "one")
    create_signing_keys(tmp_path / "two")
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


def test_keys_of_the_version_before_stay_valid_and_are_closed_to_other_users(tmp_path: Path) -> None:
    path = tmp_path / "signing_keys"
    path.write_text(json.dumps({"1": "8f14e45fceea167a5a36dedd4bea2543c4ca4238a0b923820dcc509a6f75849b"}))
    path.chmod(0o644)
    before = path.read_text()
    create_signing_keys(path)
    assert (path.read_text(), path.stat().st_mode & 0o777) == (before, 0o600)


@pytest.mark.parametrize("content", ["{", "", "[]", '{"1": "short"}', json.dumps({"1": 4 * "0123456789abcdef"})])
def test_damaged_keys_are_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "signing_keys"
    path.write_text(content)
    with pytest.raises(Unusable, match=r"signing_keys are damaged: SIGNING_KEYS.* remove it"):
        create_signing_keys(path)
    assert path.read_text() == content


@pytest.fixture
def make_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "type[Installation]":
    for name in ("SIGNING_KEYS", "SIGNING_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    create_credentials(tmp_path / "run/secrets")
    return Installation


def test_the_processes_get_the_name_of_the_file_and_no_key(tmp_path: Path, make_installation: "type[Installation]") -> None:
    variables = make_installation(tmp_path, 5000, 1).environment({"mongod": 1, "redis": 2})
    path = tmp_path / "run/secrets/signing_keys"
    assert variables["SIGNING_KEYS_FILE"] == str(path)
    assert "SIGNING_KEYS" not in variables
    secret = next(iter(json.loads(path.read_text()).values()))
    assert not any(secret in value for value in variables.values())


def test_keys_of_the_operator_are_used_and_none_are_generated(tmp_path: Path, make_installation: "type[Installation]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING_KEYS_FILE", "/etc/keys.json")
    assert make_installation(tmp_path, 5000, 1).environment({"mongod": 1, "redis": 2})["SIGNING_KEYS_FILE"] == "/etc/keys.json"
    monkeypatch.setenv("SIGNING_KEYS", json.dumps(SIGNING_KEYS))
    installation = make_installation(tmp_path, 5000, 1)
    assert installation.signing_keys_file is None
    assert "SIGNING_KEYS_FILE" not in installation.environment({"mongod": 1, "redis": 2})
    assert not (tmp_path / "run/secrets/signing_keys").exists()
