"""A million images in the database as uploads and workers leave them, written straight and fast.

The documents come from the ledger's own builders and carry what a worker's result carries, so their size is real; no file
lies behind them, since no list reads one.
"""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pymongo.write_concern import WriteConcern

from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.ledger import commits, page_index
from shared.storage.mongo import Db, Document
from shared.storage.schema import create_indexes

PER_BATCH: Final = 32
STORE: Final = "store-a"
"""Half of all batches are this store's."""
OTHERS: Final = tuple(f"store-{letter}" for letter in "bcdefghij")
LABELS: Final = tuple(f"product-{number:02d}" for number in range(24))
RARE_LABEL: Final = "product-rare"
TAG: Final = "checked"
BARCODES: Final = 500
APART: Final = timedelta(seconds=20)
"""Time between two batches."""
_TOGETHER: Final = 32
_MODEL: Final = {"name": "grocery", "version": "bench", "weights_sha256": "0" * 64}
_CHUNK_OF_RANKS: Final = 40


def seed(db: Db, batches: int, say: Callable[[str], None]) -> list[str]:
    """Fill an empty database, then create the indexes and count the segments for browsing.

    :param say: is told how far it is.
    :returns: ids of the batches, oldest first.
    """
    fast = WriteConcern(w=1, j=False)  # nothing here needs to survive
    names = ("ledger", "batches", "images")
    collections = {name: db.get_collection(name, write_concern=fast) for name in names}
    ids: list[str] = []

    def write(documents: dict[str, list[Document]]) -> None:
        for name in names:
            collections[name].insert_many(documents[name], ordered=False)

    with ThreadPoolExecutor(1) as writer:  # the next documents are built while these are written
        writing: Future[None] | None = None
        for number, documents in enumerate(_groups(batches)):
            if writing is not None:
                writing.result()
            ids += [line["_id"] for line in documents["batches"]]
            writing = writer.submit(write, documents)
            if number % (batches // _TOGETHER // 10 + 1) == 0:
                say(f"seeding: {len(ids) * PER_BATCH:,} of {batches * PER_BATCH:,} images")
        if writing is not None:
            writing.result()
    say("creating indexes")
    create_indexes(db)
    say("counting segments")
    while page_index.maintain(db, max_chunks=_CHUNK_OF_RANKS):
        pass
    return ids


def _groups(batches: int) -> Iterator[dict[str, list[Document]]]:
    rng = random.Random(20250601)
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - APART * (batches + 30)
    for begin in range(0, batches, _TOGETHER):
        group: dict[str, list[Document]] = {"ledger": [], "batches": [], "images": []}
        for number in range(begin, min(begin + _TOGETHER, batches)):
            header, images = _batch(rng, number, start + APART * number)
            group["batches"].append(header)
            group["images"] += images
            line = {
                "_id": header["_id"],
                "received": PER_BATCH,
                "deleted": 0,
                "state": "accepted",
                "at": header["created_at"],
            }
            group["ledger"].append(line)
        yield group


def _batch(rng: random.Random, number: int, at: datetime) -> tuple[Document, list[Document]]:
    store = STORE if number % 2 == 0 else OTHERS[rng.randrange(len(OTHERS))]
    batch_id = _id_at(rng, at)
    new = [
        commits.NewImage(
            index=index,
            ext="jpg",
            content_type="image/jpeg",
            file_size=rng.randint(150_000, 250_000),
            sha256=f"{rng.getrandbits(256):064x}",
            offset=index * 250_000,
            timestamp=at - timedelta(seconds=index),
            store_name=store,
            camera_id=f"cam-{index % 8}",
            barcode=f"{4_000_000_000_000 + rng.randrange(BARCODES):013d}" if index % 2 else None,
            filename=f"{index}.jpg",
            extra={"shelf": index},
        )
        for index in range(PER_BATCH)
    ]
    batch = commits.NewBatch(batch_id, new, DEFAULT_AUGMENTATIONS, detect=True, created_at=at)
    done_at = at + timedelta(seconds=8)
    images = [_finished(rng, commits.image_document(batch, image), done_at) for image in new]
    header = commits.batch_document(batch)
    failed = sum(image["status"] == "failed" for image in images)
    counts = {"queued": 0, "processing": 0, "done": PER_BATCH - failed, "failed": failed, "cancelled": 0}
    header |= {"status": "partial" if failed else "done", "counts": counts, "finished_at": done_at}
    for name in ("open", "spooled"):  # a closed batch whose spool is gone has neither
        del header[name]
    return header, images


def _finished(rng: random.Random, image: Document, at: datetime) -> Document:
    """Give an image as its worker leaves it; two in a thousand have failed."""
    image["work"] |= {"fence": 1, "finisher": "bench:1:0"}
    image |= {"updated_at": at, "finished_at": at}
    if rng.random() < 0.002:
        return image | {"status": "failed", "error": {"code": "corrupt", "detail": "The picture is damaged."}}
    found = [_detection(rng) for _ in range(rng.randint(2, 5))]
    if rng.random() < 0.0005:
        found[0]["label"] = RARE_LABEL
    return image | {
        "status": "done",
        "width": 1280,
        "height": 960,
        "exif": {"Make": "Camera", "Model": "C-2"},
        "quality": {"brightness": round(rng.random(), 4), "sharpness": round(rng.random() * 100, 2)},
        "detections": found,
        "model": _MODEL,
        "augmentations": [_augmentation(image["_id"], name, found) for name in DEFAULT_AUGMENTATIONS],
        "barcodes": [],
        "barcode_check": "not_read" if image["barcode"] else "not_declared",
        "tags": [TAG] if rng.random() < 0.02 else [],
    }


def _detection(rng: random.Random) -> dict[str, Any]:
    x, y = rng.randint(0, 1000), rng.randint(0, 700)
    box = [float(x), float(y), x + 180.5, y + 150.5]
    return {"label": LABELS[rng.randrange(len(LABELS))], "score": round(0.5 + rng.random() / 2, 4), "box": box}


def _augmentation(name: str, augmentation: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    boxes = [dict(one) for one in found]
    return {
        "name": augmentation,
        "params": {"angle": 7.5},
        "file_path": f"/uploads/{name}/{augmentation}.jpg",
        "boxes": boxes,
    }


def _id_at(rng: random.Random, at: datetime) -> str:
    """Make the UUIDv7 of a moment (RFC 9562: 48 bits of Unix milliseconds, version, variant, random)."""
    millis = int(at.replace(tzinfo=UTC).timestamp() * 1000)
    return f"{millis:012x}7{rng.getrandbits(12):03x}{0x8 | rng.getrandbits(2):x}{rng.getrandbits(60):015x}"
