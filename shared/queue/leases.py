"""Leases on documents in MongoDB: the one protocol by which workers claim work, keep it, release it and lose it.

A document waits with the status ``queued`` and is held with the status ``processing``. Beside the status it stores:

==============  ====================================================================================================
``owner``       name of the holder, which no other holder ever had; null while the document is not held
``lease_until`` when the claim ends unless it is renewed
``fence``       number that increases with every claim; it guards writes, so that a late write of a former holder fails
``not_before``  when it may be claimed, while it is queued
==============  ====================================================================================================

All times are set and compared by the server's clock (``$$NOW``): the clocks of workers do not matter. Two partial
indexes belong to each collection: ``claimable`` over the queued documents, in the order in which they are claimed, and
``leases`` over ``lease_until`` of the held ones.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from shared.storage.mongo import Db, Document, translate_errors

_QUEUED: Final = "queued"
_HELD: Final = "processing"


class Lease(NamedTuple):
    """The claim of one document: its id and the fence of the claim."""

    id: str
    fence: int


@dataclass(frozen=True, slots=True)
class LeasedCollection:
    """A collection whose documents are claimed, and what is particular about it.

    Every method raises ``StoreAway`` when MongoDB does not answer.
    """

    name: str
    subdocument: str | None = None
    """Embedded document that holds the protocol's fields except ``status``; None: the document itself holds them."""
    write_concern: WriteConcern | None = None
    """Of all writes of the protocol; None: that of the database."""
    token_field: str | None = None
    """Field that stores which call of ``claim_many`` took a document; needed by that method alone."""
    set_on_claim: Mapping[str, Any] = field(default_factory=dict)
    """Further fields (full paths) that each claim sets."""
    set_on_requeue: Mapping[str, Any] = field(default_factory=dict)
    """Further fields (full paths) that are set when a document is queued again, by ``release`` or by ``expire``."""
    releases: str | None = None
    """Counter of the attempts that ended by ``release``, if they are counted."""
    expiries: str | None = None
    """Counter of the attempts that ended by ``expire``, if they are counted; may be the same as ``releases``."""

    def collection(self, db: Db) -> Collection[Document]:
        """Return the collection with the write concern of the protocol."""
        return db.get_collection(self.name, write_concern=self.write_concern)

    def path(self, name: str) -> str:
        """Return the full path of a field of the protocol."""
        return f"{self.subdocument}.{name}" if self.subdocument else name

    def lease(self, document: Document) -> Lease:
        """Return the lease of a claimed document."""
        fields = document[self.subdocument] if self.subdocument else document
        return Lease(document["_id"], fields["fence"])

    def claimable(self) -> Document:
        """Return a filter for the documents that may be claimed now. Combine it with the index ``claimable``."""
        return {"status": _QUEUED, "$expr": {"$lte": [f"${self.path('not_before')}", "$$NOW"]}}

    def expired(self) -> Document:
        """Return a filter for the held documents whose lease has ended."""
        return {"status": _HELD, "$expr": {"$lt": [f"${self.path('lease_until')}", "$$NOW"]}}

    def guard(self, owner: str, lease: Lease) -> Document:
        """Return the filter of a write that only the holder of a document may do."""
        return {"_id": lease.id, "status": _HELD, self.path("owner"): owner, self.path("fence"): lease.fence}

    def guard_many(self, owner: str, leases: Iterable[Lease]) -> Document:
        """Return the same filter for several documents of one owner, at least one."""
        return {
            "$or": [{"_id": lease.id, self.path("fence"): lease.fence} for lease in leases],
            self.path("owner"): owner,
            "status": _HELD,
        }

    def has_claimable(self, db: Db) -> bool:
        """Whether any document may be claimed now."""
        with translate_errors():
            return self.collection(db).find_one(self.claimable(), {"_id": 1}, hint="claimable") is not None

    def claim_one(self, db: Db, document_id: str, owner: str, lease_s: float) -> Document | None:
        """Claim one queued document, in one round trip.

        :param lease_s: seconds until the claim ends unless it is renewed.
        :returns: the claimed document; None when it is no longer queued.
        """
        with translate_errors():
            return self.collection(db).find_one_and_update(
                {"_id": document_id, "status": _QUEUED},
                [{"$set": self._claim(owner, lease_s)}],
                return_document=ReturnDocument.AFTER,
            )

    def claim_many(self, db: Db, document_ids: Sequence[str], owner: str, lease_s: float) -> list[Document]:
        """Claim those of some documents that are still queued, in two round trips however many they are.

        :param lease_s: seconds until the claim ends unless it is renewed.
        :returns: the claimed documents by ascending id; when there are none the second round trip is saved.
        """
        if self.token_field is None:
            raise TypeError(f"documents of {self.name} store no token of a claim")
        token_path, token = self.path(self.token_field), uuid.uuid4().hex
        with translate_errors():
            claimed = self.collection(db).update_many(
                {"_id": {"$in": document_ids}, "status": _QUEUED},
                [{"$set": self._claim(owner, lease_s) | {token_path: token}}],
            )
            if not claimed.modified_count:
                return []
            found = self.collection(db).find({"_id": {"$in": document_ids}, token_path: token})
            return list(found.sort("_id", 1).batch_size(len(document_ids)))

    def renew(self, db: Db, owner: str, leases: Iterable[Lease], lease_s: float) -> set[Lease]:
        """Extend leases to ``lease_s`` seconds from now.

        :returns: the leases that are still held. Any other one was lost: nothing more may be written under it.
        """
        leases = set(leases)
        held = {"_id": {"$in": sorted({lease.id for lease in leases})}, "status": _HELD, self.path("owner"): owner}
        with translate_errors():
            self.collection(db).update_many(held, [{"$set": {self.path("lease_until"): now_plus(lease_s)}}])
            found = self.collection(db).find(held, {self.path("fence"): 1})
            return leases & {self.lease(document) for document in found}

    def release(
        self,
        db: Db,
        owner: str,
        leases: Sequence[Lease],
        *,
        delay_ms: int | Document = 0,
        change: Mapping[str, Any] | None = None,
    ) -> int:
        """Queue documents again that their owner holds and will not finish now.

        :param delay_ms: milliseconds until they may be claimed again, as a number or as an expression over the
            document.
        :param change: further fields (full paths) to set, as expressions.
        :returns: how many were still held.
        """
        if not leases:
            return 0
        fields = self._requeue(not_before={"$add": ["$$NOW", delay_ms]}, counter=self.releases) | dict(change or {})
        with translate_errors():
            return self.collection(db).update_many(self.guard_many(owner, leases), [{"$set": fields}]).modified_count

    def expire(
        self,
        db: Db,
        *,
        among: Mapping[str, Any] | None = None,
        change: Mapping[str, Any] | None = None,
        max_expiries: int | None = None,
        exhausted: Mapping[str, Any] | None = None,
    ) -> int:
        """Queue the documents again whose lease has ended: their worker has vanished (sweep).

        :param among: filter for the documents concerned; all by default.
        :param change: further fields (full paths) to set, as expressions.
        :param max_expiries: at this count of ``expiries`` a document is not queued again.
        :param exhausted: fields (full paths) that are set then instead, as expressions; ``status`` is one of them.
        :returns: how many leases had ended.
        """
        fields = self._requeue(not_before="$$NOW", counter=self.expiries) | dict(change or {})
        if max_expiries is not None and self.expiries is not None:
            over = {"$gte": [f"${self.path(self.expiries)}", max_expiries - 1]}
            for name, value in (exhausted or {}).items():
                fields[name] = {"$cond": [over, value, fields.get(name, f"${name}")]}
        with translate_errors():
            return (
                self.collection(db).update_many({**(among or {}), **self.expired()}, [{"$set": fields}]).modified_count
            )

    def _claim(self, owner: str, lease_s: float) -> Document:
        fence = self.path("fence")
        return {
            "status": _HELD,
            **self.set_on_claim,
            self.path("owner"): owner,
            self.path("lease_until"): now_plus(lease_s),
            fence: {"$add": [f"${fence}", 1]},
        }

    def _requeue(self, *, not_before: Any, counter: str | None) -> Document:
        fields: Document = {
            "status": _QUEUED,
            self.path("owner"): None,
            self.path("not_before"): not_before,
            **self.set_on_requeue,
        }
        if counter is not None:
            fields[self.path(counter)] = {"$add": [f"${self.path(counter)}", 1]}
        return fields


def now_plus(seconds: float) -> Document:
    """Return an expression for a moment this many seconds after now, by the server's clock."""
    return {"$add": ["$$NOW", int(seconds * 1000)]}
