"""The page of a batch in a browser, over a database that the test changes instead of a worker."""

from pathlib import Path

import pytest

from shared import settings
from shared.ledger import claims, closing, reprocessing, results
from shared.storage.blob_keys import variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.e2e.browser import Browser
from tests.support.gunicorn_front import run_web_front
from tests.support.ledger import commit_new_batch, successful_results
from tests.support.service_stack import wait_until
from tests.support.web_client import make_image

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
_PICTURES = "[...document.querySelectorAll('.card img, .strip img')].map(image => image.naturalWidth)"
_BOXES = "[...document.querySelectorAll('.card rect')].map(box => box.getBoundingClientRect().width > 0)"
_STATES = """[...document.querySelectorAll('.card .state')].map(label => {
  const { x, y, width, height } = label.getBoundingClientRect();
  return document.elementFromPoint(x + width / 2, y + height / 2) === label ? label.textContent : `covered: ${label.textContent}`;
})"""
_BODY_BYTES = "performance.getEntriesByType('resource').filter(e => e.name.includes('/image_batches/')).map(e => e.decodedBodySize)"


def process(db: Db, count: int) -> None:
    """Finish some images of the only batch, as a worker does."""
    claim = claims.claim(db, "w", count, 60)
    results.finish(db, "w", successful_results(claim))
    closing.close_batches(db, {image["batch_id"] for image in claim.images})


def test_the_page_follows_a_batch_until_it_is_finished_without_reading_its_images(
    db: Db, mongo: settings.Mongo, browser: Browser, tmp_path: Path
) -> None:
    batch_id = commit_new_batch(db, 130)
    with run_web_front(mongo, tmp_path) as front:
        browser.open(f"http://127.0.0.1:{front.port}/batches/{batch_id}?page=2")
        assert browser.evaluate("document.querySelectorAll('.card').length") == 30
        wait_until(lambda: browser.evaluate(_BODY_BYTES), 60, "the page has asked for the counts")
        assert max(browser.evaluate(_BODY_BYTES)) < 1000
        process(db, 32)
        browser.wait_for_load()
        assert browser.evaluate("document.querySelector('progress').value") == 32
        while db.batches.count_documents({"open": True}):
            process(db, 32)
        browser.wait_for_load()
        assert browser.evaluate("document.querySelector('h1 .state').textContent") == "done"
        assert browser.evaluate("location.search") == "?page=2"
        assert browser.evaluate("document.scripts.length") == 0


def test_the_old_pictures_and_boxes_stay_beside_the_state_while_images_are_processed_again(
    db: Db, mongo: settings.Mongo, browser: Browser, tmp_path: Path
) -> None:
    batch_id = commit_new_batch(db, 3)
    with run_web_front(mongo, tmp_path) as front:
        for index in range(3):
            LocalBlobs(tmp_path / "blobs").write(variant_key(f"{batch_id}000{index}", 1, "thumb"), [make_image(index, (320, 240))])
        found = [{"label": "Milk", "score": 0.9, "box": [100, 100, 300, 400]}]
        for _ in range(3):
            results.finish(db, "w", successful_results(claims.claim(db, "w", 1, 60), width=640, height=480, detections=found))
        closing.close_batches(db, [batch_id])
        assert reprocessing.reprocess(db, batch_id, {"index": {"$lt": 2}}, reprocessing.Options(), None).queued == 2
        claims.claim(db, "w", 1, 60)
        browser.open(f"{front.url}/batches/{batch_id}")
        wait_until(lambda: browser.evaluate(_PICTURES) == [320] * 3, 60, "the pictures are loaded")
        assert browser.evaluate(_BOXES) == [True] * 3
        assert browser.evaluate(_STATES) == ["processing", "queued"]
        browser.open(f"{front.url}/")
        wait_until(lambda: browser.evaluate(_PICTURES) == [320] * 3, 60, "the pictures are loaded")
        assert browser.evaluate("[...document.querySelectorAll('.strip img')].map(image => image.title)") == ["processing", "queued", ""]
