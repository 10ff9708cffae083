"""Lists and single batches need little memory in the web process, however many images they have and however large these are."""

import http.client
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from scripts.bench.process_memory import measure_peak, memory_now
from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.ledger import commits
from shared.storage.indexes import create_indexes
from shared.storage.mongo import Db, Document, connect
from tests.conftest import LONG_TIMEOUTS
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.ledger import new_batch
from web.batches.serializers import MAX_IMAGE_BYTES

pytestmark = pytest.mark.slow
_MIB: Final = 2**20
_PEAK_BYTES: Final = 32 * _MIB
_GROWTH_BYTES: Final = 40 * _MIB
_SMALL_BATCHES: Final = 16
_IMAGES: Final = 1000


def insert_batch(db: Db, images: int = _IMAGES, **fields: Any) -> str:
    """Insert a batch without its files. ``fields`` are added to its image documents."""
    batch = new_batch(images)
    db.batches.insert_one(commits.batch_document(batch))
    db.images.insert_many([commits.image_document(batch, image) | fields for image in batch.images], ordered=False)
    return batch.id


def large_result() -> Document:
    """Return the fields of an image with many detections, with the boxes of its augmentations, and with 4 KB of extra keys."""
    detections = [
        {"label": f"product {number:02}", "score": 0.123456789, "box": [1.123456789, 2.3456789, 300.456789, 400.56789]}
        for number in range(100)
    ]
    augmentations: list[Document] = [{"name": name, "params": {}, "file_path": "/", "boxes": detections} for name in DEFAULT_AUGMENTATIONS]
    extra = {"note": "x" * 4000}
    return {"status": "done", "width": 1, "height": 1, "detections": detections, "augmentations": augmentations, "extra": extra}


@pytest.fixture(scope="module")
def large(mongo_url: str) -> Iterator[tuple[settings.Mongo, str]]:
    """Fill a database with a batch of large results and, after it, batches of small images. Return the id of the former."""
    mongo = settings.Mongo(url=mongo_url, database="test_large_batches")
    db = connect(mongo, app="test")
    create_indexes(db)
    large_id = insert_batch(db, **large_result())
    for _ in range(_SMALL_BATCHES):
        insert_batch(db)
    yield mongo, large_id
    db.client.drop_database(db.name)
    db.client.close()


def get(front: WebFront, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=120)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_largest_lists_need_little_memory(large: tuple[settings.Mongo, str], tmp_path: Path) -> None:
    mongo, large_id = large
    newest = "/image_batches?per_page=100&images_per_batch=1000&cursor="
    paths = {
        "small images": f"{newest}newest",
        "large images": f"{newest}{int(large_id, 16) + 1:032x}",
        "all images": f"/image_batches/{large_id}",
        "page of a batch": f"/batches/{large_id}",
        "start page": "/",
    }
    bodies: dict[str, bytes] = {}
    peaks: dict[str, float] = {}
    with run_web_front(mongo, tmp_path) as front:
        for path in ("/image_batches?images_per_batch=1", "/", f"/batches/{large_id}?page=11"):
            assert get(front, path)[0] == 200

        def fetch_all() -> None:
            for name, path in paths.items():
                peaks[name] = measure_peak(front.worker_pid, partial(fetch, front, path, name))

        def fetch(front: WebFront, path: str, name: str) -> None:
            status, bodies[name] = get(front, path)
            assert status == 200

        idle = memory_now(front.worker_pid)
        fetch_all()
        growth = memory_now(front.worker_pid) - idle
    assert {name: peak / _MIB for name, peak in peaks.items() if peak > _PEAK_BYTES} == {}
    assert growth < _GROWTH_BYTES
    for name in ("small images", "large images"):
        batches = json.loads(bodies[name])["batches"]
        assert len(bodies[name]) < MAX_IMAGE_BYTES + 64 * 1024
        assert len(bodies[name]) > MAX_IMAGE_BYTES - 128 * 1024
        counts = [len(batch["images"]) for batch in batches]
        assert counts == sorted(counts, reverse=True)  # the newest batches have all their images
        assert [batch.get("images_more", False) for batch in batches] == [count < _IMAGES for count in counts]
    assert len(json.loads(bodies["all images"])["images"]) == _IMAGES
    assert bodies["page of a batch"].count(b'class="card"') == 100


def test_a_failure_in_the_middle_of_a_batch_breaks_the_connection_and_is_logged(tmp_path: Path) -> None:
    """A client must not take an incomplete list of images for a complete one."""
    with Mongod(tmp_path / "data") as server:
        mongo = settings.Mongo(url=server.url, database="test", **LONG_TIMEOUTS)
        db = connect(mongo, app="test")
        create_indexes(db)
        batch_id = insert_batch(db, **large_result())
        db.client.close()
        with run_web_front(mongo, tmp_path, MONGODB_SERVER_SELECTION_TIMEOUT_S="1") as front:
            connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=120)
            connection.request("GET", f"/image_batches/{batch_id}")
            response = connection.getresponse()
            assert response.read(1000).startswith(b'{"status":')  # the remaining body is larger than the buffers of the sockets
            server.kill()
            with pytest.raises(http.client.IncompleteRead):
                response.read()
            response.close()
            connection.close()
            (line,) = [line for line in front.log_lines("shelfsight.error") if line.get("path") == f"/image_batches/{batch_id}"]
    assert line["message"].startswith("the response is incomplete: ")
    assert line["request_id"] == response.headers["X-Request-ID"]
