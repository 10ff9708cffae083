"""The fields of a seeded image with which it is searched: tags, annotations, the check of its barcode, perceptual hashes.

The shares are those of a database in use: a tag on a tenth of the images, annotations on a twentieth. The perceptual hashes
of one camera resemble each other, because a camera always shows the same shelf; four in a hundred images belong to groups
of near-duplicates, five in a hundred have the nearly equal hashes of one fixed camera, and some are equally dark.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from shared.catalog.tag_rules import key_of
from shared.storage.mongo import Db, Document

TAG: Final = "checked"
"""The tag of one in fifty images."""
LARGE_TAG: Final = "reviewed"
"""The tag of one in ten images."""
RARE_TAG: Final = "promotion"
"""The tag of one in a thousand images."""
TAG_IDS: Final = {name: hashlib.blake2b(name.encode(), digest_size=16).hexdigest() for name in (TAG, LARGE_TAG, RARE_TAG)}
_TAG_SHARES: Final = {TAG: 0.02, LARGE_TAG: 0.1, RARE_TAG: 0.001}
_PEOPLE: Final = ("ana", "bo", "chidi", None)
_ANNOTATED: Final = 0.05
_BARCODE_CHECKS: Final = ("match",) * 14 + ("mismatch",) + ("not_read",) * 5
_WINDOW: Final = timedelta(seconds=20_000)
_GROUPS_PER_WINDOW: Final = 320
"""The seeded batches have 32,000 images per window, so that a group has about four."""
_IN_GROUP: Final = 0.04
_MOST_FLIPPED_BITS: Final = 6
_DARK: Final = 0.0003
_FIXED: Final = 0.05
_FIXED_FLIPS: Final = 0.05
"""The probability that a bit of a hash of the fixed camera differs from the scene."""
_EPOCH: Final = datetime(1970, 1, 1)


def add_tags_and_counts(db: Db) -> None:
    """Insert the tags that ``random_tags`` applies, and count their images for each store."""
    created_at = datetime(2026, 1, 1)
    db.tags.insert_many(
        {"_id": tag_id, "name": name, "key": key_of(name), "description": None, "color": None, "created_at": created_at, "created_by": None}
        for name, tag_id in TAG_IDS.items()
    )
    counts = db.images.aggregate(
        [
            {"$match": {"tags.id": {"$gt": ""}}},
            {"$project": {"_id": 0, "store_name": 1, "tags.id": 1}},
            {"$unwind": "$tags"},
            {"$group": {"_id": {"tag": "$tags.id", "store": "$store_name"}, "n": {"$sum": 1}}},
        ],
        hint="tagged",
        allowDiskUse=True,
    )
    rows = [_count(row["_id"]["tag"], row["_id"]["store"], row["n"]) for row in counts]
    if rows:
        db.tag_counts.insert_many(rows)


def _count(tag: str, store: str, number: int) -> Document:
    return {"_id": f"{tag}:{store}", "tag": tag, "store": store, "n": number}


def random_tags(rng: random.Random, at: datetime) -> list[Document]:
    """Return the tags of an image, as stored."""
    draw = rng.random  # one draw per tag, so that the tags do not depend on each other
    return [{"id": TAG_IDS[name], "by": rng.choice(_PEOPLE), "at": at} for name, share in _TAG_SHARES.items() if draw() < share]


def random_annotations(rng: random.Random, labels: Sequence[str], detections: Iterable[Document], at: datetime) -> Document:
    """Return the fields of an annotated image, or nothing for an image at which nobody has looked.

    :param labels: the labels of boxes that a person has drawn. Other boxes are taken from ``detections``.
    """
    if rng.random() >= _ANNOTATED:
        return {}
    by = rng.choice(_PEOPLE)
    boxes: list[dict[str, Any]] = [
        {"label": found["label"], "box": found["box"], "from": "detection"} for found in detections if rng.random() < 0.7
    ]
    if rng.random() < 0.3:
        boxes.append({"label": rng.choice(labels), "box": [10.0, 20.0, 190.5, 170.5], "from": "drawn"})
    annotations = [{"id": f"{rng.getrandbits(64):016x}", "by": by, "at": at} | box for box in boxes]
    return {"annotations": annotations, "annotations_revision": 1, "annotated_at": at, "revision": 1}


def random_barcode_check(rng: random.Random, barcode: str | None) -> Document:
    """Return the barcodes that were read in an image, and how they compare with the one that the upload declared."""
    if barcode is None:
        return {"barcodes": [], "barcode_check": "not_declared"}
    check = rng.choice(_BARCODE_CHECKS)
    read = [] if check == "not_read" else [barcode if check == "match" else f"{rng.randrange(10**13):013d}"]
    box = [400.0, 700.0, 560.0, 760.0]
    return {"barcodes": [{"format": "EAN-13", "text": text, "box": box} for text in read], "barcode_check": check}


def random_hashes(rng: random.Random, image: Document) -> Document:
    """Return the perceptual hash of an image, its bands, and its ``sha256`` if the image is an exact copy of another one."""
    draw = rng.random()
    if draw < _DARK:
        return _hash_fields(0)
    if draw < _DARK + _IN_GROUP:
        window = int((image["created_at"] - _EPOCH) / _WINDOW)
        group = f"{window}/{rng.randrange(_GROUPS_PER_WINDOW)}"
        flipped = rng.sample(range(64), rng.randint(0, _MOST_FLIPPED_BITS))
        fields = _hash_fields(_digest(group, 8) ^ sum(1 << bit for bit in flipped))
        return fields if flipped else fields | {"sha256": f"{_digest(group, 32):064x}"}
    if draw < _DARK + _IN_GROUP + _FIXED:
        return _hash_fields(_scene("fixed", "fixed") ^ sum(1 << bit for bit in range(64) if rng.random() < _FIXED_FLIPS))
    draws = [rng.getrandbits(64) for _ in range(4)]
    noise = draws[0] & draws[1] & (draws[2] | draws[3])  # each bit is set with the probability 3/16
    return _hash_fields(_scene(image["store_name"], image["camera_id"]) ^ noise)


def _hash_fields(phash: int) -> Document:
    return {"phash": f"{phash:016x}", "phash_bands": [band << 16 | phash >> (48 - 16 * band) & 0xFFFF for band in range(4)]}


@cache
def _scene(store: str, camera: str) -> int:
    """Return the perceptual hash of what a camera always shows."""
    return _digest(f"{store}/{camera}", 8)


def _digest(text: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big")
