"""The keys of receipts: they outlive the signing keys, operators print them for auditors, and revoke them."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from scripts.administration.__main__ import cli
from shared import settings
from shared.accounts import sessions, signing_key_file
from shared.ledger import receipts
from shared.storage.mongo import Db
from tests.support.accounts import SIGNING_KEYS, bearer, make_key
from tests.support.ledger import commit_new_batch
from tests.support.web_client import make_client

Open = Callable[[], FlaskClient]


@pytest.fixture(autouse=True)
def _environment(mongo: settings.Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", mongo.url)
    monkeypatch.setenv("MONGODB_DATABASE", mongo.database)
    for name in ("SIGNING_KEYS", "SIGNING_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with the signing key ``test``, which ``SIGNING_KEYS_FILE`` names and which was made long ago."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(SIGNING_KEYS))
    monkeypatch.setenv("SIGNING_KEYS_FILE", str(path))
    make_old(path)
    return path


@pytest.fixture
def open_web(mongo: settings.Mongo, blobs_root: Path) -> Open:
    """Return a function that starts another web application with the signing keys in the environment."""
    return lambda: make_client(mongo, blobs_root, access=settings.Access(environment="development", access="on"))


def make_old(path: Path) -> None:
    os.utime(path, (time.time() - 60, time.time() - 60))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def receipt_of(web: FlaskClient, db: Db) -> dict[str, Any]:
    answer = web.get(f"/image_batches/{commit_new_batch(db, 2)}/receipt", headers=bearer(make_key(db, "viewer")))
    assert answer.status_code == 200
    receipt: dict[str, Any] = answer.get_json()
    return receipt


def is_valid(web: FlaskClient, db: Db, receipt: Any) -> bool:
    return bool(web.post("/receipts/verify", json=receipt, headers=bearer(make_key(db, "viewer"))).get_json()["valid"])


def test_a_receipt_verifies_after_its_signing_key_was_rotated_and_dropped(db: Db, file: Path, open_web: Open) -> None:
    receipt = receipt_of(open_web(), db)
    assert receipt["signature"]["key_id"].startswith("test-")
    for _ in range(2):
        signing_key_file.rotate(file, -2 * sessions.LIFETIME)  # as if each key had not signed for a month
        make_old(file)
    assert "test" not in signing_key_file.read(file)
    web = open_web()
    newer = receipt_of(web, db)
    assert newer["signature"]["key_id"] != receipt["signature"]["key_id"]
    assert is_valid(web, db, receipt)
    assert is_valid(web, db, newer)


def test_a_receipt_verifies_after_another_setting_replaces_the_key(db: Db, open_web: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for secret in ("8f14e45fceea167a5a36dedd4bea2543", "c4ca4238a0b923820dcc509a6f75849b"):  # the same id, another secret
        monkeypatch.setenv("SIGNING_KEYS", json.dumps({"1": secret}))
        web = open_web()
        found.append(receipt_of(web, db))
    assert found[0]["signature"]["key_id"] != found[1]["signature"]["key_id"]
    assert [is_valid(web, db, receipt) for receipt in found] == [True, True]


def test_dropping_keys_that_others_know_makes_their_receipts_invalid(db: Db, file: Path, open_web: Open) -> None:
    web = open_web()
    receipt = receipt_of(web, db)
    assert run("rotate-keys", "--drop-old", "--yes").exit_code == 0
    assert not is_valid(web, db, receipt)
    # This process has not read the new file yet: it may sign nothing with the old key.
    late = web.get(f"/image_batches/{commit_new_batch(db, 1)}/receipt", headers=bearer(make_key(db, "viewer")))
    assert (late.status_code, late.get_json(force=True)["code"], late.headers["Retry-After"]) == (503, "unavailable", "60")
    assert "scripts/admin rotate-keys" in late.get_json(force=True)["detail"]
    web = open_web()
    assert is_valid(web, db, receipt_of(web, db))
    assert not is_valid(web, db, receipt)


def test_a_dropped_key_that_has_signed_nothing_yet_is_revoked_too(db: Db, file: Path, open_web: Open) -> None:
    web = open_web()
    assert run("rotate-keys", "--drop-old", "--yes").exit_code == 0
    assert web.get(f"/image_batches/{commit_new_batch(db, 1)}/receipt", headers=bearer(make_key(db, "viewer"))).status_code == 503


def test_an_auditor_gets_the_key_with_which_a_receipt_verifies(db: Db, file: Path, open_web: Open) -> None:
    receipt = receipt_of(open_web(), db)
    key_id = receipt["signature"]["key_id"]
    result = run("receipt-key", key_id)
    shown_id, key = result.stdout.split()
    assert (result.exit_code, shown_id) == (0, key_id)
    assert receipts.is_valid(receipt, {key_id: bytes.fromhex(key)}.get)
    assert SIGNING_KEYS["test"] not in result.output
    (listed,) = json.loads(run("receipt-key", "--json").stdout)["receipt_keys"]
    assert (listed["id"], listed["key"], listed["signing_key"], listed["revoked_at"], listed["created_at"][-1]) == (key_id, key, "test", None, "Z")
    assert [event["target"] for event in db.audit_events.find({"type": "receipt_key.shown"}).sort("_id")] == [f"receipt_key:{key_id}", "receipt_key:*"]
    assert key not in str(list(db.audit_events.find()))


def test_a_key_is_revoked_once(db: Db, file: Path, open_web: Open) -> None:
    receipt = receipt_of(open_web(), db)
    key_id = receipt["signature"]["key_id"]
    assert run("rotate-keys").exit_code == 0
    make_old(file)
    web = open_web()
    assert run("revoke-receipt-key", key_id).exit_code == 1  # not confirmed
    assert is_valid(web, db, receipt)
    assert run("revoke-receipt-key", key_id, "--yes").exit_code == 0
    revoked_at = db.receipt_keys.find_one({})["revoked_at"]  # type: ignore[index]
    assert run("revoke-receipt-key", key_id, "--yes").exit_code == 0
    assert db.receipt_keys.find_one({})["revoked_at"] == revoked_at  # type: ignore[index]
    assert not is_valid(web, db, receipt)
    assert run("receipt-key").stdout.split()[-1] == "revoked"
    assert db.audit_events.count_documents({"type": "receipt_key.revoked"}) == 2
    assert is_valid(web, db, receipt_of(web, db))


def test_the_key_that_signs_receipts_is_only_revoked_by_force(db: Db, file: Path, open_web: Open) -> None:
    web = open_web()
    receipt = receipt_of(web, db)
    key_id = receipt["signature"]["key_id"]
    result = run("revoke-receipt-key", key_id, "--yes")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Run scripts/admin rotate-keys --drop-old first" in result.stderr
    assert is_valid(web, db, receipt_of(web, db))
    assert db.audit_events.count_documents({"type": "receipt_key.revoked"}) == 0
    assert run("revoke-receipt-key", key_id, "--yes", "--force").exit_code == 0
    refused = web.get(f"/image_batches/{commit_new_batch(db, 1)}/receipt", headers=bearer(make_key(db, "viewer")))
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "60")
    assert run("rotate-keys").exit_code == 0  # as the response says
    make_old(file)
    web = open_web()
    assert is_valid(web, db, receipt_of(web, db))


def test_a_key_that_will_soon_sign_receipts_is_not_revoked(db: Db, file: Path, open_web: Open) -> None:
    receipt_of(open_web(), db)
    assert run("rotate-keys").exit_code == 0
    make_old(file)
    newer = receipt_of(open_web(), db)["signature"]["key_id"]
    os.utime(file)  # the new key has not begun to sign
    for key in json.loads(run("receipt-key", "--json").stdout)["receipt_keys"]:
        assert run("revoke-receipt-key", key["id"], "--yes").exit_code == 1
    make_old(file)
    for key in json.loads(run("receipt-key", "--json").stdout)["receipt_keys"]:
        assert run("revoke-receipt-key", key["id"], "--yes").exit_code == (1 if key["id"] == newer else 0)


def test_the_first_key_in_the_setting_signs_receipts(db: Db, open_web: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = {"1": "8f14e45fceea167a5a36dedd4bea2543"}, {"2": "c4ca4238a0b923820dcc509a6f75849b"}
    monkeypatch.setenv("SIGNING_KEYS", json.dumps(old))
    key_id = receipt_of(open_web(), db)["signature"]["key_id"]
    assert run("revoke-receipt-key", key_id, "--yes").exit_code == 1
    monkeypatch.setenv("SIGNING_KEYS", json.dumps(new | old))
    assert run("revoke-receipt-key", key_id, "--yes").exit_code == 0


def test_keys_that_do_not_exist_are_an_error(db: Db) -> None:
    for arguments in (["receipt-key"], ["receipt-key", "test-0123456789abcdef"], ["revoke-receipt-key", "nonsense", "--yes"]):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "There is no" in result.stderr
