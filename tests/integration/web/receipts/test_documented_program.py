"""The program in ``docs/receipts.md`` verifies receipts offline, with a key that ``scripts/admin receipt-key`` prints."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.accounts import receipt_keys
from shared.ledger import receipts
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, process_all
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "receipts.md").read_text()


@pytest.fixture(name="program")
def write_program(tmp_path: Path) -> Path:
    """Return a file with the program in the documentation."""
    (text,) = re.findall(r"(?s)```python\n(.*?)```", PAGE)
    assert len(text.splitlines()) <= 20
    path = tmp_path / "verify_receipt.py"
    path.write_text(text)
    return path


def run(program: Path, receipt: str, key: bytes) -> tuple[int, str]:
    file = program.with_name("receipt.json")
    file.write_text(receipt)
    environment = {"PATH": os.environ["PATH"], "RECEIPT_KEY": key.hex()}
    done = subprocess.run([sys.executable, "-I", str(program), str(file)], env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).partition(":")[0]


def test_the_program_tells_real_receipts_from_forged_ones(web: FlaskClient, db: Db, program: Path) -> None:
    batch_id = commit_new_batch(db, 3)
    process_all(db)
    web.delete(f"/images/{batch_id}0001")
    receipt: dict[str, Any] = web.get(f"/image_batches/{batch_id}/receipt").get_json()
    key = receipt_keys.find(db, receipt["signature"]["key_id"])
    assert key is not None
    text = json.dumps(receipt)
    assert run(program, text, key) == (0, "valid")
    assert run(program, json.dumps(receipt, indent=2, sort_keys=True), key) == (0, "valid")
    for forged in (text.replace('"deleted": 1', '"deleted": 0'), text.replace('"done"', '"failed"', 1), text.replace('"deleted": 1', '"deleted": 0, "deleted": 1')):
        assert run(program, forged, key) == (1, "INVALID")
    assert run(program, text, bytes(32)) == (1, "INVALID")


def test_the_program_shows_that_a_document_was_removed_by_hand(web: FlaskClient, db: Db, program: Path) -> None:
    batch_id = commit_new_batch(db, 3)
    db.images.delete_one({"_id": f"{batch_id}0001"})
    receipt = web.get(f"/image_batches/{batch_id}/receipt").get_json()
    key = receipt_keys.find(db, receipt["signature"]["key_id"])
    assert key is not None
    assert run(program, json.dumps(receipt), key) == (1, "UNBALANCED")


def test_the_canonical_json_begins_and_ends_as_documented(web: FlaskClient, db: Db) -> None:
    receipt = web.get(f"/image_batches/{commit_new_batch(db, 1)}/receipt").get_json()
    signature = receipt.pop("signature")
    text = receipts.canonical_json(receipt)
    assert text.startswith(b'{"balance":{"cancelled":0,"deleted":0,"done":0,')
    assert text.endswith(f'"issued_at":"{receipt["issued_at"]}"}}'.encode())
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,32}-[0-9a-f]{16}", signature["key_id"])
