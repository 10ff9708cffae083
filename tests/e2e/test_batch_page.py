"""The page of a batch in a browser, over a database that the test changes instead of a worker."""

from pathlib import Path

import pytest

from shared import settings
from shared.ledger import claims, closing, results
from shared.storage.mongo import Db
from tests.e2e.browser import Browser
from tests.support.gunicorn_front import run_web_front
from tests.support.ledger import commit_new_batch, successful_results
from tests.support.service_stack import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
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
