"""Leases on documents in MongoDB: the protocol with which workers claim work, keep it, release it, and lose it.

A document that waits for a worker has the status ``queued``. A document that a worker holds has the status
``processing``. In addition to the status, a document stores these fields:

==============  ====================================================================================================
``owner``       name of the holder, which is never reused; null while no worker holds the document
``lease_until`` time at which the claim ends unless it is renewed
``fence``       number that increases with every claim; it guards writes, so a late write of a former holder fails
``not_before``  time before which a queued document cannot be claimed
==============  ====================================================================================================

All times are set and compared with the clock of the MongoDB server (``$$NOW``), so the clocks of the workers do not
matter. Each collection needs two partial indexes: ``claimable`` (or ``claimable_index``) contains the queued documents in the
order in which they are claimed, and ``leases`` contains ``lease_until`` of the held documents.
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
    """A claim on one document: the id of the document and the fence of the claim."""

    id: str
    fence: int


@dataclass(frozen=True, slots=True)
class LeasedCollection:
    """A collection whose documents are claimed with leases. Its attributes adapt the protocol to the collection.

    Every method that accesses the database raises ``StoreAway`` when MongoDB does not respond.
    """

    name: str
    subdocument: str | None = None
    """Name of the embedded document that holds all fields of the protocol except ``status``. None means that the
    document itself holds these fields."""
    write_concern: WriteConcern | None = None
    """Write concern for all writes of the protocol. None means the default of the database."""
    token_field: str | None = None
    """Field that identifies the call of ``claim_many`` that claimed a document. Only ``claim_many`` needs it."""
    set_on_claim: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields (full paths) that each claim sets."""
    cleared: tuple[str, ...] = ()
    """Protocol fields, besides ``owner``, that become null when a claim ends in any way."""
    set_on_requeue: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields (full paths) that ``release`` and ``expire`` set when they requeue a document."""
    releases: str | None = None
    """Field that counts the attempts that ended with ``release``, if they are counted."""
    expiries: str | None = None
    """Field that counts the attempts that ended with ``expire``, if they are counted. It can be the same field as
    ``releases``."""
    claimable_index: str = "claimable"
    """Name of the partial index of the queued documents."""

    def collection(self, db: Db) -> Collection[Document]:
        """Return the collection, with the write concern that the protocol uses."""
        return db.get_collection(self.name, write_concern=self.write_concern)

    def path(self, name: str) -> str:
        """Return the full path of a protocol field in the document."""
        return f"{self.subdocument}.{name}" if self.subdocument else name

    def lease(self, document: Document) -> Lease:
        """Return the lease of a claimed document."""
        fields = document[self.subdocument] if self.subdocument else document
        return Lease(document["_id"], fields["fence"])

    def claimable(self) -> Document:
        """Return a filter for the documents that can be claimed now. Use it with the index ``claimable_index``."""
        return {"status": _QUEUED, "$expr": {"$lte": [f"${self.path('not_before')}", "$$NOW"]}}

    def expired(self) -> Document:
        """Return a filter for the held documents whose lease has expired."""
        return {"status": _HELD, "$expr": {"$lt": [f"${self.path('lease_until')}", "$$NOW"]}}

    def unheld(self) -> Document:
        """Return the fields (full paths) that are null while no worker holds a document, each with the value None."""
        return {self.path(name): None for name in ("owner", *self.cleared)}

    def guard(self, owner: str, lease: Lease) -> Document:
        """Return a filter that matches a document only while ``owner`` holds this lease.

        The owner must use this filter for its writes to the document, so that a write after the loss of the lease
        changes nothing.
        """
        return {"_id": lease.id, "status": _HELD, self.path("owner"): owner, self.path("fence"): lease.fence}

    def guard_many(self, owner: str, leases: Iterable[Lease]) -> Document:
        """Return a filter that matches the documents on which ``owner`` still holds these leases (at least one)."""
        return {
            "$or": [{"_id": lease.id, self.path("fence"): lease.fence} for lease in leases],
            self.path("owner"): owner,
            "status": _HELD,
        }

    def has_claimable(self, db: Db) -> bool:
        """Return whether any document can be claimed now."""
        with translate_errors():
            return self.collection(db).find_one(self.claimable(), {"_id": 1}, hint=self.claimable_index) is not None

    def holds(self, db: Db, owner: str, lease: Lease) -> bool:
        """Return whether ``owner`` still holds this lease according to the database."""
        with translate_errors():
            return self.collection(db).find_one(self.guard(owner, lease), {"_id": 1}) is not None

    def claim_one(self, db: Db, document_id: str, owner: str, lease_s: float) -> Document | None:
        """Claim one queued document, in one round trip.

        :param lease_s: seconds until the claim ends unless it is renewed.
        :returns: the claimed document, or None if it is no longer queued.
        """
        with translate_errors():
            return self.collection(db).find_one_and_update(
                {"_id": document_id, "status": _QUEUED},
                [{"$set": self._claim(owner, lease_s)}],
                return_document=ReturnDocument.AFTER,
            )

    def claim_many(self, db: Db, document_ids: Sequence[str], owner: str, lease_s: float) -> list[Document]:
        """Claim the documents with these ids that are still queued.

        A call takes two round trips for any number of documents, or one round trip if no document is still queued.

        :param lease_s: seconds until the claims end unless they are renewed.
        :returns: the claimed documents in ascending order of id.
        """
        if self.token_field is None:
            raise TypeError(f"the collection {self.name} has no token field, which claim_many needs")
        token_path, token = self.path(self.token_field), uuid.uuid4().hex
        with translate_errors():
            claimed = self.collection(db).update_many(
                {"_id": {"$in": document_ids}, "status": _QUEUED},
                [{"$set": self._claim(owner, lease_s) | {token_path: token}}],
            )
            if not claimed.modified_count:
                return []
            found = self.collection(db).find({"_id": {"$in": document_ids}, token_path: token})
            # A batch that is full does not show that it is the last one, so there would be another round trip.
            return list(found.sort("_id", 1).batch_size(len(document_ids) + 1))

    def renew(self, db: Db, owner: str, leases: Iterable[Lease], lease_s: float) -> set[Lease]:
        """Renew leases, so that each ends ``lease_s`` seconds from now.

        :returns: the leases that are still held. The other leases were lost, so their holder must not write any more.
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
        """Requeue documents that their owner holds and will not finish now.

        :param delay_ms: milliseconds until the documents can be claimed again, as a number or as an aggregation
            expression over the document.
        :param change: additional fields (full paths) to set, with their values as aggregation expressions.
        :returns: the number of documents that were still held.
        """
        if not leases:
            return 0
        fields = self._requeue(delay_ms, self.releases) | dict(change or {})
        with translate_errors():
            return self.collection(db).update_many(self.guard_many(owner, leases), [{"$set": fields}]).modified_count

    def expire(
        self,
        db: Db,
        *,
        among: Mapping[str, Any] | None = None,
        delay_ms: int | Document = 0,
        change: Mapping[str, Any] | None = None,
        max_expiries: int | None = None,
        exhausted: Mapping[str, Any] | None = None,
    ) -> int:
        """Requeue documents whose lease has expired because their worker has died (called by the sweep).

        :param among: filter for the documents to consider; by default, all documents.
        :param delay_ms: milliseconds until the documents can be claimed again, as a number or as an aggregation
            expression over the document.
        :param change: additional fields (full paths) to set, with their values as aggregation expressions.
        :param max_expiries: number of expired leases after which a document is not requeued any more. It is compared
            with the field that the attribute ``expiries`` names.
        :param exhausted: fields (full paths) to set if a document is not requeued, with their values as aggregation
            expressions. They include ``status``.
        :returns: the number of documents whose lease had expired, whether they were requeued or not.
        """
        fields = self._requeue(delay_ms, self.expiries) | dict(change or {})
        if max_expiries is not None:
            if self.expiries is None:
                raise TypeError(f"the collection {self.name} does not count expired leases")
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
            self.path("owner"): {"$literal": owner},
            self.path("lease_until"): now_plus(lease_s),
            fence: {"$add": [f"${fence}", 1]},
        }

    def _requeue(self, delay_ms: int | Document, counter: str | None) -> Document:
        fields: Document = {
            "status": _QUEUED,
            **self.unheld(),
            self.path("not_before"): {"$add": ["$$NOW", delay_ms]},
            **self.set_on_requeue,
        }
        if counter is not None:
            fields[self.path(counter)] = {"$add": [f"${self.path(counter)}", 1]}
        return fields


def now_plus(seconds: float) -> Document:
    """Return an aggregation expression for the time ``seconds`` from now, according to the server's clock."""
    return {"$add": ["$$NOW", int(seconds * 1000)]}
