"""An image whose files cannot be written is released alone, and delays no other image."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared.storage.blob_keys import image_prefix
from shared.storage.mongo import Db
from tests.integration.worker.running import count, run_at_once, upload_images
from tests.support.ledger import validate_documents
from worker.images.pipeline import ImagePipeline

pytestmark = pytest.mark.slow
FailWrites = Callable[[int, Callable[[Path], bool]], AbstractContextManager[None]]


@pytest.fixture
def fail_writes(monkeypatch: pytest.MonkeyPatch) -> FailWrites:
    """Return a context in which the disk returns an error when some files get their final path."""

    @contextmanager
    def fail(number: int, is_bad: Callable[[Path], bool]) -> Iterator[None]:
        rename = Path.replace

        def replace(self: Path, target: Path) -> Path:
            if is_bad(target):
                raise OSError(number, os.strerror(number), str(self), None, str(target))
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            yield

    return fail


def test_an_original_that_cannot_be_stored_delays_no_other_image(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs_root: Path, fail_writes: FailWrites
) -> None:
    denied, other = upload_images(web, db, 2), upload_images(web, db, 2)
    with fail_writes(errno.EACCES, lambda target: denied["batch_id"] in str(target)):
        for _ in range(3):
            run_at_once(pipeline, db)
        waiting = {"batch_id": denied["batch_id"], "status": "queued", "work.solo": False, "work.faults": 0}
        assert db.images.count_documents(waiting) == 2
        assert db.images.count_documents({"batch_id": other["batch_id"], "status": "done"}) == 2
    run_at_once(pipeline, db)
    assert count(db) == {"done": 4}
    assert list((blobs_root / "tmp").iterdir()) == []


def test_an_image_whose_augmented_images_cannot_be_written_delays_no_other_image(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs_root: Path, fail_writes: FailWrites
) -> None:
    ids = [image["id"] for image in upload_images(web, db, 3)["images"]]
    with fail_writes(errno.EIO, lambda target: target.name == "thumb.jpg" and f"/{image_prefix(ids[1])}/" in str(target)):
        for _ in range(3):
            run_at_once(pipeline, db)
        assert [image["status"] for image in db.images.find().sort("_id", 1)] == ["done", "queued", "done"]
        waiting = {"_id": ids[1], "work.solo": False, "work.faults": 0, "work.released_for": "blobs_unavailable"}
        assert db.images.count_documents(waiting) == 1
    run_at_once(pipeline, db)
    assert count(db) == {"done": 3}
    assert list((blobs_root / "tmp").iterdir()) == []
    validate_documents(db)
