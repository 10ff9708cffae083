"""Helpers of the tests of tags: tag images, read what they show, and compare the counts with the images."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from shared.allowed_stores import AllowedStores
from shared.catalog import image_tags, retired_tags, tags
from shared.errors import ShelfsightError
from shared.ids import image_id
from shared.ledger import tag_counts
from shared.ledger.batch_images import VISIBLE
from shared.storage.mongo import Db, Document
from tests.support.ledger import commit_new_batch, utc_now


def commit_images(db: Db, stores: Sequence[str] = ("north",)) -> list[str]:
    """Commit a batch with an image in each of the stores, and return the ids of the images."""
    batch_id = commit_new_batch(db, store=stores)
    return [image_id(batch_id, index) for index in range(len(stores))]


def no_precondition(_etag: str) -> None:
    """Accept each version of the tags of an image."""


def add(db: Db, image: str, *names: str, by: str | None = "anna", stores: AllowedStores = None) -> list[str]:
    """Tag an image, and return the names of its tags."""
    return names_of(db, image_tags.add(db, image, names, stores, by, no_precondition))


def replace(db: Db, image: str, *names: str, by: str | None = "anna") -> list[str]:
    """Replace the tags of an image, and return their names."""
    return names_of(db, image_tags.replace(db, image, names, None, by, no_precondition))


def remove(db: Db, image: str, *names: str) -> list[str]:
    """Remove tags from an image, and return the names of the others."""
    return names_of(db, image_tags.remove(db, image, names, None, None, no_precondition))


def shown(db: Db, image: str) -> list[str]:
    """Return the names of the tags of an image."""
    return names_of(db, image_tags.read_image(db, image, None))


def names_of(db: Db, image: Document) -> list[str]:
    """Return the names of the tags of a stored image."""
    return [tag.name for tag in image_tags.show(db, image)]


def find(db: Db, name: str) -> set[str]:
    """Return the ids of the images that a filter with the name of a tag finds."""
    return {row["_id"] for row in db.images.find({"tags.id": {"$in": list(tags.find_ids(db, name))}, "status": VISIBLE}, {"_id": 1})}


def list_names(db: Db) -> list[str]:
    """Return the names of all tags in the order of the list."""
    return [tag.name for tag in tags.list_page(db, None, None, 100)]


def stored_counts(db: Db) -> dict[tuple[str, str], int]:
    """Return the stored counts that are not 0."""
    return {(row["tag"], row["store"]): row["n"] for row in db.tag_counts.find({"n": {"$ne": 0}})}


def recount(db: Db) -> dict[tuple[str, str], int]:
    """Return what the stored counts have to be, from the images themselves."""
    counts: Counter[tuple[str, str]] = tag_counts.deltas_of(db.images.find({}), 1)
    return dict(counts)


def retire_earlier(db: Db) -> None:
    """Change all retired tags so that no transaction can still write their ids."""
    db.tags.update_many({"is_retired": True}, {"$set": {"retired_at": utc_now() - timedelta(seconds=retired_tags.WRITERS_S + 1)}})


def run_together(*calls: Callable[[], Any]) -> list[Any]:
    """Make calls in threads at the same time, and return their results or domain errors."""
    results: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = calls[number]()
        except ShelfsightError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
