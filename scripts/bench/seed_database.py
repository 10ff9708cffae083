"""Fill a database with a million processed images by direct and fast inserts, without uploads and workers.

The documents are built with the ledger's own functions and contain the same fields as a worker's results, so that
their size is realistic. There are no image files, because lists do not read files.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pymongo.write_concern import WriteConcern

from scripts.bench import seed_image_fields
from scripts.bench.seed_image_fields import TAG
from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.ledger import commits, page_index, sums
from shared.storage.indexes import create_indexes
from shared.storage.mongo import Db, Document

PER_BATCH: Final = 32
STORE: Final = "store-a"
"""The store to which half of all batches belong."""
OTHER_STORES: Final = tuple(f"store-{letter}" for letter in "bcdefghij")
LABELS: Final = tuple(f"product-{number:02d}" for number in range(24))
RARE_LABEL: Final = "product-rare"
FILTERS: Final = {
    "camera_id": {"camera_id": "cam-3"},
    "barcode": {"barcode": "4000000000007"},
    "status=done": {"status": "done"},
    "status=failed": {"status": "failed"},
    "status=partial": {"status": "partial"},
    "label": {"label": LABELS[5]},
    "label, rare": {"label": RARE_LABEL},
    "min_score": {"min_score": "0.9"},
    "label and min_score": {"label": LABELS[5], "min_score": "0.95"},
    "tag": {"tag": TAG},
}
"""Filters of a list that match some of the seeded batches, by the names of their rows."""
BARCODES: Final = 500
BATCH_INTERVAL: Final = timedelta(seconds=20)
"""Time between two successive batches."""
_GROUP_SIZE: Final = 32
_MODEL: Final = {"name": "grocery", "version": "bench", "weights_sha256": "0" * 64}
_RANKS_PER_STEP: Final = 40
_LEDGER_STEP_S: Final = 10


def seed(db: Db, batches: int, log: Callable[[str], None]) -> list[str]:
    """Fill an empty database with ``batches`` batches, then create the indexes and count the batches as the sweep does.

    :param log: function that is called with each line of progress.
    :returns: ids of the batches, with the oldest first.
    """
    fast = WriteConcern(w=1, j=False)  # this data does not need to be durable
    names = ("ledger", "batches", "images")
    collections = {name: db.get_collection(name, write_concern=fast) for name in names}
    ids: list[str] = []

    def write(documents: dict[str, list[Document]]) -> None:
        for name in names:
            collections[name].insert_many(documents[name], ordered=False)

    with ThreadPoolExecutor(1) as writer:  # the next documents are built while the previous ones are written
        writing: Future[None] | None = None
        for number, documents in enumerate(_groups(batches)):
            if writing is not None:
                writing.result()
            ids += [header["_id"] for header in documents["batches"]]
            writing = writer.submit(write, documents)
            if number % (batches // _GROUP_SIZE // 10 + 1) == 0:
                log(f"seeding: {len(ids) * PER_BATCH:,} of {batches * PER_BATCH:,} images")
        if writing is not None:
            writing.result()
    prepare(db, log)
    return ids


def prepare(db: Db, log: Callable[[str], None]) -> None:
    """Create the indexes and the tags of a filled database, and count its batches as the sweep does, until nothing is left.

    :param log: function that is called with each line of progress.
    """
    steps: dict[str, Callable[[], bool]] = {
        "counting the segments of the page index": lambda: page_index.maintain(db, max_chunks=_RANKS_PER_STEP) == 0,
        "counting the segments of the ledger": lambda: _count_ledger(db),
    }
    log("creating indexes")
    create_indexes(db)
    seed_image_fields.add_tags_and_counts(db)
    for name, step in steps.items():
        started = time.monotonic()
        while not step():
            pass
        log(f"{name}: {time.monotonic() - started:.0f} s")


def _count_ledger(db: Db) -> bool:
    """Count segments of the ledger, and return whether all have been counted, also for the second time."""
    complete = sums.refresh(db, time.monotonic() + _LEDGER_STEP_S).complete
    return complete and db.ledger_segments.find_one({"due": True}) is None


def _groups(batches: int) -> Iterator[dict[str, list[Document]]]:
    rng = random.Random(20250601)
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - BATCH_INTERVAL * (batches + 30)
    for first in range(0, batches, _GROUP_SIZE):
        group: dict[str, list[Document]] = {"ledger": [], "batches": [], "images": []}
        for number in range(first, min(first + _GROUP_SIZE, batches)):
            store = STORE if number % 2 == 0 else OTHER_STORES[rng.randrange(len(OTHER_STORES))]
            add_batch(group, rng, start + BATCH_INTERVAL * number, [store])
        yield group


def add_batch(
    documents: dict[str, list[Document]], rng: random.Random, created_at: datetime, stores: Sequence[str]
) -> None:
    """Add the documents of one processed batch with ``PER_BATCH`` images to ``documents``, by collection.

    :param stores: the stores of the images; they are used in turn.
    """
    header, images = _create_batch(rng, created_at, stores)
    line = {"_id": header["_id"], "received": PER_BATCH, "deleted": 0, "state": "accepted", "at": created_at}
    for name, added in (("ledger", [line]), ("batches", [header]), ("images", images)):
        documents.setdefault(name, []).extend(added)


def _create_batch(rng: random.Random, created_at: datetime, stores: Sequence[str]) -> tuple[Document, list[Document]]:
    batch_id = _create_id(rng, created_at)
    new = [
        commits.NewImage(
            index=index,
            ext="jpg",
            content_type="image/jpeg",
            file_size=rng.randint(150_000, 250_000),
            sha256=f"{rng.getrandbits(256):064x}",
            offset=index * 250_000,
            timestamp=created_at - timedelta(seconds=index),
            store_name=stores[index % len(stores)],
            camera_id=f"cam-{index % 8}",
            barcode=f"{4_000_000_000_000 + rng.randrange(BARCODES):013d}" if index % 2 else None,
            filename=f"{index}.jpg",
            extra={"shelf": index},
        )
        for index in range(PER_BATCH)
    ]
    batch = commits.NewBatch(batch_id, new, DEFAULT_AUGMENTATIONS, detect=True, created_at=created_at)
    done_at = created_at + timedelta(seconds=8)
    images = [finish_image(rng, commits.image_document(batch, image), done_at) for image in new]
    header = commits.batch_document(batch)
    failed = sum(image["status"] == "failed" for image in images)
    counts = {"queued": 0, "processing": 0, "done": PER_BATCH - failed, "failed": failed, "cancelled": 0}
    header |= {"status": "partial" if failed else "done", "counts": counts, "finished_at": done_at}
    for name in ("open", "spooled", "unswept"):  # a batch that the sweep has finished has none of these fields
        del header[name]
    return header, images


def finish_image(rng: random.Random, image: Document, finished_at: datetime) -> Document:
    """Return an image's document in the state in which a worker leaves it after processing.

    Two in a thousand images have the status ``failed``; all others are ``done``.
    """
    image["work"] |= {"fence": 1, "finisher": "bench:1:0"}
    image |= {"updated_at": finished_at, "finished_at": finished_at}
    if rng.random() < 0.002:
        return image | {
            "status": "failed",
            "error": {"code": "corrupt", "detail": "The file is damaged and cannot be decoded."},
        }
    detections = [_create_detection(rng) for _ in range(rng.randint(2, 5))]
    if rng.random() < 0.0005:
        detections[0]["label"] = RARE_LABEL
    return image | {
        "status": "done",
        "width": 1280,
        "height": 960,
        "exif": {"Make": "Camera", "Model": "C-2"},
        "quality": {"brightness": round(rng.random(), 4), "sharpness": round(rng.random() * 100, 2)},
        "detections": detections,
        "model": _MODEL,
        "augmentations": [_create_augmentation(image["_id"], name, detections) for name in DEFAULT_AUGMENTATIONS],
        "tags": seed_image_fields.random_tags(rng, finished_at),
        "top_score": max(detection["score"] for detection in detections),
        **seed_image_fields.random_barcode_check(rng, image["barcode"]),
        **seed_image_fields.random_annotations(rng, LABELS, detections, finished_at),
        **seed_image_fields.random_hashes(rng, image),
    }


def _create_detection(rng: random.Random) -> dict[str, Any]:
    x, y = rng.randint(0, 1000), rng.randint(0, 700)
    box = [float(x), float(y), x + 180.5, y + 150.5]
    return {"label": LABELS[rng.randrange(len(LABELS))], "score": round(0.5 + rng.random() / 2, 4), "box": box}


def _create_augmentation(image_id: str, name: str, detections: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "params": {"angle": 7.5},
        "file_path": f"/uploads/{image_id}/{name}.jpg",
        "boxes": [dict(detection) for detection in detections],
    }


def _create_id(rng: random.Random, created_at: datetime) -> str:
    """Return a UUIDv7 for a time (RFC 9562: 48 bits of Unix milliseconds, version, variant, random bits)."""
    millis = int(created_at.replace(tzinfo=UTC).timestamp() * 1000)
    return f"{millis:012x}7{rng.getrandbits(12):03x}{0x8 | rng.getrandbits(2):x}{rng.getrandbits(60):015x}"
