"""Measure what the signed URLs of a long list cost: the same list while access is on, and while access is open."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import orjson
from flask.testing import FlaskClient

from scripts.bench import page_rates, seed_database
from scripts.bench.auth_testbed import Testbed
from scripts.bench.extent import Extent
from scripts.bench.report import Row, compare
from scripts.bench.timing import interleave, median

_BATCHES: Final = 100
_SIGNED_AT_MOST: Final = 1.3


def measure(testbed: Testbed, extent: Extent, log: Callable[[str], None]) -> list[Row]:
    """Compare the time of a list of 100 batches with 3,200 images and all their signed URLs with that of the same without.

    The batches are written into the database of the testbed.
    """
    seed_database.seed(testbed.db, _BATCHES, log)
    key = testbed.create_key(testbed.create_user())[1]
    lists = {
        "signed": partial(_time_list, page_rates.create_client(testbed.settings(is_on=True)), {"Authorization": f"Bearer {key}"}, signed=True),
        "bare": partial(_time_list, page_rates.create_client(testbed.settings(is_on=False)), {}, signed=False),
    }
    times = interleave(lists, extent.choose(full=25, quick=9, smoke=1), warmups=2)
    signed, bare = (1000 * median(times[name]) for name in ("signed", "bare"))
    name = f"list of {_BATCHES} batches, {_BATCHES * seed_database.PER_BATCH:,} images with signed URLs: beside the same without"
    return [compare(name, signed, "ms", bare, at_most=_SIGNED_AT_MOST)]


def _time_list(web: FlaskClient, headers: dict[str, str], *, signed: bool) -> float:
    """Return the seconds until a list of all batches was read.

    :raises RuntimeError: when the list does not have all images, or their URLs are not as ``signed`` says.
    """
    started = time.perf_counter()
    body = web.get("/image_batches", query_string={"per_page": str(_BATCHES)}, headers=headers).data
    elapsed = time.perf_counter() - started
    images = [image for batch in orjson.loads(body)["batches"] for image in batch["images"]]
    if len(images) != _BATCHES * seed_database.PER_BATCH or any(("signature=" in image["url"]) != signed for image in images):
        raise RuntimeError(f"Unexpected list of {len(images)} images: {body[:300]!r}")
    return elapsed
