"""Database and file store belong together: a store that is another one, or not mounted, loses nothing."""

import logging
import shutil
from pathlib import Path

import pytest

from shared import settings
from shared.blobs import LocalBlobs
from shared.bond import Bond
from shared.errors import DiskFull, StoreAway
from shared.layout import MARK
from shared.mongo import Db
from tests.integration.http import client, item, picture, post

pytestmark = pytest.mark.slow


def test_both_get_a_mark_once_and_every_later_process_finds_it(db: Db, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    first = Bond(db, blobs)
    first.check()
    mark = blobs.read(MARK)
    assert len(mark) == 32
    first.check()
    Bond(db, blobs).check()
    assert blobs.read(MARK) == mark


def test_a_store_without_the_mark_is_refused_until_it_is_back_and_the_log_says_what_to_do(
    db: Db, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, away = tmp_path / "blobs", tmp_path / "away"
    bond = Bond(db, LocalBlobs(root))
    bond.check()
    root.rename(away)  # as if it were no longer mounted
    root.mkdir()
    with caplog.at_level(logging.CRITICAL, "shelfsight.error"):
        for late in (bond, bond, Bond(db, LocalBlobs(root))):
            with pytest.raises(StoreAway) as refused:
                late.check()
            assert refused.value.code == "blobs_unavailable"
            assert str(root) not in refused.value.detail
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # once a process
    assert "Is its volume mounted?" in said[0]
    root.rmdir()
    away.rename(root)
    bond.check()


def test_a_store_of_another_database_is_refused(db: Db, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.write(MARK, [b"f" * 32])
    with pytest.raises(StoreAway):
        Bond(db, blobs).check()
    assert "another database" in caplog.text
    assert db.bonds.count_documents({}) == 0
    blobs.delete(MARK)
    Bond(db, blobs).check()


def test_a_disk_that_was_full_at_the_beginning_leaves_no_mark_behind(db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")

    def full(*_: object) -> None:
        raise DiskFull("There is no room left for files.")

    with monkeypatch.context() as during:
        during.setattr(blobs, "write", full)
        with pytest.raises(DiskFull):
            Bond(db, blobs).check()
    Bond(db, blobs).check()


def test_nothing_is_accepted_into_a_store_that_is_not_the_databases(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = client(mongo, blobs_root)
    assert post(web, [item(picture(1))]).status_code == 202
    shutil.rmtree(blobs_root)
    refused = post(web, [item(picture(2))])
    assert (refused.status_code, refused.get_json()["code"]) == (503, "blobs_unavailable")
    assert db.batches.count_documents({}) == 1
    checks = web.get("/readyz").get_json()["checks"]
    assert not checks["blobs"]["ok"]
