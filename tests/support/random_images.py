"""Random images in all states, with every field that lists filter and sort by, and values for these filters."""

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from shared.ledger import commits
from shared.states import ImageState
from shared.storage.mongo import Db, Document
from shared.storage.schema import BARCODE_CHECKS
from tests.support.ledger import batch_id_at, new_batch

LABELS: Final = ("apple", "pear", "milk")
STORES: Final = ("a", "b", "c")
_FIRST: Final = datetime(2026, 1, 1)
_SHA256: Final = ("a" * 64, "b" * 64, "c" * 64)
_TAGS: Final = ("one", "two", "deleted")


def insert_images(db: Db, seed: int, batches: int, stores: Iterable[str] = STORES) -> list[Document]:
    """Insert batches of one to six random images, and return the images that lists can contain."""
    source, names = random.Random(seed), list(stores)
    found: list[Document] = []
    for number in range(batches):
        batch = new_batch(
            store=source.choices(names, k=source.randint(1, 6)), id=batch_id_at(_FIRST + timedelta(minutes=number), source.getrandbits(40))
        )
        header = commits.batch_document(batch)
        images = [commits.image_document(batch, image) | _fields(source) for image in batch.images]
        db.batches.insert_one(header)
        db.images.insert_many(images)
        found += [image for image in images if image["status"] != "deleting"]
    return found


def filter_values(images: list[Document]) -> dict[str, list[Any]]:
    """Return for each field of ``Filters`` values of which some match images and some may not."""
    return {
        "store_name": ["a"],
        "camera_id": ["cam 1"],
        "barcode": ["96385074"],
        "status": [state.value for state in ImageState],
        "label": ["apple"],
        "min_score": [0.7],
        "tag_ids": [("one",), ("one", "two"), ()],
        "since": [_FIRST + timedelta(hours=1)],
        "until": [_FIRST + timedelta(hours=2)],
        "batch_id": [images[len(images) // 2]["batch_id"]],
        "sha256": [_SHA256[0]],
        "barcode_check": ["match"],
        "untagged": [(), ("deleted",)],
        "annotated": [True, False],
        "min_sharpness": [40.0],
        "max_sharpness": [60.0],
        "min_brightness": [0.4],
        "max_brightness": [0.6],
        "ids": [tuple(image["_id"] for image in images[::3]), ()],
    }


def _fields(source: random.Random) -> Document:
    state = source.choices([*(state.value for state in ImageState), "deleting"], [1, 1, 10, 1, 1, 1])[0]
    tags = [{"id": name, "by": None, "at": _FIRST} for name in source.sample(_TAGS, source.choice([0, 0, 1, 1, 2]))]
    fields: Document = {
        "status": state,
        "camera_id": f"cam {source.randint(0, 2)}",
        "barcode": source.choice([None, "96385074", "4006381333931"]),
        "timestamp": _FIRST + timedelta(minutes=30 * source.randint(0, 6)),  # many images have the same time
        "sha256": source.choice(_SHA256),
        "tags": tags,
    }
    if source.random() < 0.3:
        labels = source.sample(LABELS, source.randint(0, 2))
        annotation = {"id": "0" * 32, "box": [0.0, 0.0, 1.0, 1.0], "by": None, "at": _FIRST, "from": "drawn"}
        fields |= {"annotations": [annotation | {"label": label} for label in labels], "annotated_at": _FIRST}
    return fields | (_result(source) if state == ImageState.DONE else {})


def _result(source: random.Random) -> Document:
    detections = [
        {"label": label, "score": source.choice([0.5, 0.7, 0.9]), "box": [0.0, 0.0, 1.0, 1.0]}
        for label in source.choices(LABELS, k=source.randint(0, 3))
    ]
    result: Document = {
        "detections": detections,
        "quality": {"sharpness": source.choice([0.0, 40.0, 60.0, 99.5]), "brightness": source.choice([0.0, 0.4, 0.6, 1.0])},
        "barcode_check": source.choice(BARCODE_CHECKS),
    }
    return result | ({"top_score": max(detection["score"] for detection in detections)} if detections else {})
