"""Receipts: what the ledger says about a batch at one moment, signed so that it can be shown to others later.

All numbers and images of a receipt are read from one snapshot. So ``balance`` holds also while images are processed or deleted:
``received`` is the sum of the other numbers, unless documents were removed by hand.

The signature is an HMAC with SHA-256 over the *canonical JSON* of all members but ``signature``: the members of each object in
the order of their names, no white space, UTF-8 without escapes that JSON does not need. A receipt contains only strings,
integers and null, whose canonical JSON is the same in every language. ``docs/receipts.md`` describes it byte by byte.
"""

import hmac
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from shared.allowed_stores import AllowedStores
from shared.errors import NotFound
from shared.ledger.batch_images import visible_images
from shared.states import ImageState
from shared.storage.mongo import Db, Document, translate_errors

ALGORITHM: Final = "HMAC-SHA256"
_MEMBERS: Final = frozenset({"alg", "key_id", "value"})
_VALUE: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_INTEGER: Final = re.compile(r"(0|[1-9][0-9]{0,15})\Z", re.ASCII)
_BY_BATCH: Final = [("batch_id", 1), ("index", 1)]
_FIELDS: Final = dict.fromkeys(("index", "sha256", "status", "created_at", "finished_at"), 1)
_PENDING: Final = frozenset({ImageState.QUEUED.value, ImageState.PROCESSING.value})
_PIECE: Final = 5000


class Ambiguous(ValueError):
    """A JSON text that programs can read differently, or that contains what no receipt contains."""


def read(db: Db, batch_id: str, stores: AllowedStores, deadline_ms: int) -> Document:
    """Return the receipt of a batch, without a signature.

    For a reader who is limited to some stores, the batch is their part: ``received`` is the number of its images that are not deleted,
    and ``deleted`` is 0, because the ledger does not count by store. For all other readers, both are those of the ledger.

    :raises NotFound: when the batch is unknown or deleted, or has no image of ``stores``.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms`` for a query.
    """
    with translate_errors(), db.client.start_session(snapshot=True) as session:
        header = db.batches.find_one({"_id": batch_id, "listed": True}, {"stores": 1, "now": "$$NOW"}, session=session, max_time_ms=deadline_ms)
        if header is None or (stores is not None and stores.isdisjoint(header["stores"])):
            raise NotFound("There is no such batch.")
        line = db.ledger.find_one({"_id": batch_id}, {"received": 1, "deleted": 1}, session=session, max_time_ms=deadline_ms)
        query = {"batch_id": batch_id} | visible_images(stores)
        found = db.images.find(query, _FIELDS, session=session).sort(_BY_BATCH).hint(_BY_BATCH)
        images = [_show(image) for image in found.batch_size(_PIECE).max_time_ms(deadline_ms)]
    received, deleted = (len(images), 0) if stores is not None or line is None else (line["received"], line["deleted"])
    return {"batch_id": batch_id, "issued_at": _time(header["now"]), "images": images, "balance": _balance(images, received, deleted)}


def sign(receipt: Document, key_id: str, secret: bytes) -> Document:
    """Return a receipt with its signature."""
    return receipt | {"signature": {"alg": ALGORITHM, "key_id": key_id, "value": _sign(receipt, secret)}}


def parse(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8 of which all JSON parsers read alike.

    The caller has checked that it is JSON, and limits its size and its depth.

    :raises Ambiguous: when a member is repeated, or a number is no integer in its shortest form (``1.0``, ``1e0``, ``-0``).
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse)
    except ValueError as error:
        raise Ambiguous from error


def is_valid(receipt: Mapping[str, Any], find_secret: Callable[[str], bytes | None]) -> bool:
    """Return whether a receipt has a valid signature. It is compared in constant time.

    :param receipt: a JSON object that ``parse`` has returned.
    :param find_secret: returns the secret of a key by its id; None if no key with this id is valid.
    """
    signature = receipt.get("signature")
    if not isinstance(signature, dict) or signature.keys() != _MEMBERS or signature["alg"] != ALGORITHM:
        return False
    key_id, value = signature["key_id"], signature["value"]
    if not isinstance(key_id, str) or not isinstance(value, str) or not _VALUE.match(value):
        return False
    secret = find_secret(key_id)
    if secret is None:
        return False
    try:
        expected = _sign({name: member for name, member in receipt.items() if name != "signature"}, secret)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return hmac.compare_digest(expected, value)


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of an object.

    :raises UnicodeEncodeError: when a text contains half of a surrogate pair, which UTF-8 cannot represent.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _sign(unsigned: Mapping[str, Any], secret: bytes) -> str:
    return hmac.digest(secret, canonical_json(unsigned), "sha256").hex()


def _show(image: Document) -> Document:
    # An image that is processed again keeps the time of its earlier result until it has the new one.
    finished_at = None if image["status"] in _PENDING else image.get("finished_at")
    return {
        "id": image["_id"],
        "index": image["index"],
        "sha256": image["sha256"],
        "status": image["status"],
        "received_at": _time(image["created_at"]),
        "finished_at": None if finished_at is None else _time(finished_at),
    }


def _balance(images: list[Document], received: int, deleted: int) -> dict[str, int]:
    counts = Counter(image["status"] for image in images)
    ended = {state: counts[state] for state in ("done", "failed", "cancelled")}
    return {"received": received, **ended, "pending": sum(counts[state] for state in _PENDING), "deleted": deleted}


def _time(at: datetime) -> str:
    """Return a time (naive UTC) in RFC 3339 with milliseconds."""
    return at.isoformat(timespec="milliseconds") + "Z"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Ambiguous
    return members


def _integer(text: str) -> int:
    if not _INTEGER.match(text):
        raise Ambiguous
    return int(text)


def _refuse(_text: str) -> Any:
    raise Ambiguous
