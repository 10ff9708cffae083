"""``python -m worker.sweep.leader``: every two seconds, what a crash left undone. Two may run; a lease in MongoDB lets one work."""

import hashlib
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import ShelfsightError
from shared.ids import is_batch_id
from shared.ledger import claims, commits, deletion, page_index, results, store_rotation
from shared.queue.heartbeats import SWEEP_LEASE
from shared.queues import IMAGES
from shared.states import TERMINAL, ImageState
from shared.storage.blob_keys import FILES, SPOOL, batch_prefix, image_prefix, original_key, spool_key
from shared.storage.blobs import BlobMissing
from shared.storage.local_blobs import TEMP
from shared.storage.mongo import Document, translate_errors
from worker.sweep.inspections import InspectionSweep

_log = logging.getLogger("shelfsight.error")
_MANY: Final = 200
_TEMP_AGE_S: Final = 3600
_STEP: Final = 1024 * 1024


class Sweep:
    """One sweep: its stores and what it remembers between two looks."""

    def __init__(self, stores: Stores) -> None:
        """Work on these stores."""
        settings = stores.settings
        self._settings, self._db, self._blobs, self._identity = settings, stores.db, stores.blobs, stores.identity
        self._wakeups = stores.wakeups[IMAGES]
        self._inspections = InspectionSweep(stores)
        self._me = uuid.uuid4().hex
        self._clean_at = self._clean_until = 0.0
        self._shard = 0
        self._longest_s = settings.worker.hard_limit_s + settings.worker.lease_s

    def tick(self) -> None:
        """Do everything that is due. Each part fails alone: the next look comes soon.

        Cleaning gets half a look's time, and goes on at the next: hashing what a busy hour left behind must not hold up bells.
        """
        if not self._quietly(self._lead):
            return
        for part in (self._expire, self._close, self._ring, self._inspections.tend, self._count):
            self._quietly(part)
        if time.monotonic() >= self._clean_at and self._quietly(self._knows_the_store):
            more = False
            for part in (self._clean_spools, self._clean_fences, self._clean_orphans, self._finish_deletions, self._clean_inspections):
                self._clean_until = time.monotonic() + self._settings.sweep.interval_s / 8
                more |= self._quietly(part)
            if not more:
                self._clean_at = time.monotonic() + self._settings.sweep.clean_interval_s

    def _quietly(self, part: Callable[..., bool | None], *about: object) -> bool:
        try:
            return bool(part(*about))
        except ShelfsightError as error:
            _log.warning("sweep: %s: %s", part.__name__, error.code)
        except Exception:  # noqa: BLE001 -- one part's fault must not end the others
            _log.exception("sweep: %s", part.__name__)
        return False

    def _lead(self) -> bool:
        """Take or keep the lead for five looks."""
        length_ms = int(self._settings.sweep.interval_s * 5000)
        mine = {"_id": SWEEP_LEASE, "owner": self._me, "until": {"$add": ["$$NOW", length_ms]}}
        free = {"$or": [{"$eq": ["$owner", self._me]}, {"$lt": ["$until", "$$NOW"]}]}  # a missing field sorts below
        take = [{"$replaceWith": {"$cond": [free, mine, "$$ROOT"]}}]
        with translate_errors():
            try:
                lead = self._db.leases.find_one_and_update(
                    {"_id": SWEEP_LEASE}, take, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # two began at once
                return False
        return lead is not None and bool(lead["owner"] == self._me)

    def _knows_the_store(self) -> bool:
        self._identity.check()
        return True

    def _expire(self) -> bool:
        ended = claims.expire_leases(self._db)
        if ended:
            _log.warning("sweep: %d images of vanished workers are queued again", ended)
        return bool(ended)

    def _close(self) -> bool:
        return bool(results.close_batches(self._db, results.find_unclosed(self._db)))

    def _ring(self) -> bool:
        store_rotation.repair(self._db)
        if not claims.has_claimable(self._db):
            return False
        waiting = self._wakeups.count_waiting()
        return waiting == 0 and self._wakeups.publish()

    def _count(self) -> bool:
        page_index.maintain(self._db)
        wrong = page_index.recount(self._db)
        if wrong:
            _log.warning("sweep: %d segment counts were put right", wrong)
        return bool(wrong)

    def _clean_spools(self) -> bool:
        """Delete spools whose images are all terminal and whose originals all stand; and spools of no batch, when old.

        :returns: whether there is more to do.
        """
        with translate_errors():
            due = self._db.batches.find({"spooled": True, "open": {"$ne": True}}, {"_id": 1}).sort("_id", 1).limit(_MANY)
            done = [row["_id"] for row in due]
        for batch_id in done:
            if time.monotonic() > self._clean_until:
                return True
            self._quietly(self._settle_spool, batch_id)
        old = [
            blob.key.removeprefix(f"{SPOOL}/")
            for blob in self._blobs.list(SPOOL)
            if time.time() - blob.modified > self._settings.sweep.orphan_age_s
        ]
        for begin in range(0, len(old), _MANY):
            some = [batch_id for batch_id in old[begin : begin + _MANY] if is_batch_id(batch_id)]
            known = commits.spooled_batches(self._db, some)
            for batch_id in some:
                if time.monotonic() > self._clean_until:
                    return True
                if batch_id in known:
                    continue
                with translate_errors():  # its tombstone first: a late commit must collide instead of losing its bytes
                    nothing = commits.abandon(self._db, batch_id)
                if nothing:
                    self._blobs.delete(spool_key(batch_id))
        return len(done) == _MANY

    def _clean_inspections(self) -> bool:
        return self._inspections.clean(self._clean_until)

    def _settle_spool(self, batch_id: str) -> None:
        """Delete a spool of which every byte stands elsewhere; keep one for good of which some does not. Publish what is done."""
        images = self._settled_images(batch_id)
        if images is None:
            return
        self._quietly(self._publish, images)  # that a link is missing costs time alone: no reason to keep a spool
        if self._originals_stand(batch_id, images):
            failpoints.reach("9-before-spool-delete")
            self._blobs.delete(spool_key(batch_id))
        with translate_errors():
            self._db.batches.update_one({"_id": batch_id}, {"$unset": {"spooled": ""}})

    def _settled_images(self, batch_id: str) -> list[Document] | None:
        """Read the images of a batch by a majority's view; None when some is not terminal."""
        images = self._db.get_collection("images", read_concern=ReadConcern("majority"))
        wanted = {"status": 1, "file_size": 1, "sha256": 1, "work.ext": 1, "work.offset": 1, "work.fence": 1}
        with translate_errors():
            rows = list(images.find({"batch_id": batch_id}, wanted).batch_size(2000))
        return rows if all(image["status"] in TERMINAL for image in rows) else None

    def _publish(self, images: list[Document]) -> None:
        """Make sure that a plain file server finds what was made of each image that is done: its worker may have died before."""
        for image in images:
            if image["status"] == ImageState.DONE:
                self._blobs.publish(image_prefix(image["_id"]), str(image["work"]["fence"]))

    def _originals_stand(self, batch_id: str, images: list[Document]) -> bool:
        """Check that each original has its length and digest; False when one has not and the spool does not mend it."""
        lost = [image for image in images if not self._stands(image) and not self._mend(batch_id, image)]
        for image in lost:
            _log.critical("sweep: the original of %s does not stand; its spool is kept", image["_id"])
        if not images:
            _log.critical("sweep: the documents of batch %s are gone; its spool is kept", batch_id)
        return bool(images) and not lost

    def _stands(self, image: Document) -> bool:
        key = original_key(image["_id"], image["work"]["ext"])
        found = self._blobs.stat(key)
        return found is not None and found.size == image["file_size"] and self._digest(key) == image["sha256"]

    def _mend(self, batch_id: str, image: Document) -> bool:
        """Write an original anew from the spool."""
        try:
            data = self._blobs.read(spool_key(batch_id), image["work"]["offset"], image["file_size"])
        except BlobMissing:
            return False
        if hashlib.sha256(data).hexdigest() != image["sha256"]:
            return False
        _log.error("sweep: the original of %s was bad and is written anew", image["_id"])
        self._blobs.write(original_key(image["_id"], image["work"]["ext"]), [data])
        return True

    def _digest(self, key: str) -> str:
        digest = hashlib.sha256()
        with suppress(BlobMissing):
            file, _ = self._blobs.open(key)
            with file:
                while part := file.read(_STEP):
                    digest.update(part)
        return digest.hexdigest()

    def _clean_fences(self) -> bool:
        """Remove what lost claims wrote, once no worker can still be writing: folders of fences that are not the valid one."""
        old = {"$expr": {"$lt": ["$finished_at", {"$subtract": ["$$NOW", int(self._longest_s * 1000)]}]}}
        with translate_errors():
            due = [row["_id"] for row in self._db.batches.find({"unswept": True, "open": {"$ne": True}, **old}, {"_id": 1}).limit(_MANY)]
        for batch_id in due:
            if time.monotonic() > self._clean_until:
                return True
            with translate_errors():
                rows = list(self._db.images.find({"batch_id": batch_id}, {"work.fence": 1}).batch_size(2000))
            for image in rows:
                prefix = image_prefix(image["_id"])
                for fence in self._blobs.folders(prefix):
                    if fence != str(image["work"]["fence"]):
                        self._blobs.delete_tree(f"{prefix}/{fence}")
            with translate_errors():
                self._db.batches.update_one({"_id": batch_id}, {"$unset": {"unswept": ""}})
        return len(due) == _MANY

    def _clean_orphans(self) -> bool:
        """Remove folders of batches that are gone, one of the 256 shards at a time, and what was left in the temporary folder."""
        self._shard = (self._shard + 1) % 256
        shard = f"{FILES}/{self._shard:02x}"
        folders = [name for name in self._blobs.folders(shard) if is_batch_id(name)]
        for begin in range(0, len(folders), _MANY):
            if time.monotonic() > self._clean_until:
                return True
            some = folders[begin : begin + _MANY]
            with translate_errors():
                known = {row["_id"] for row in self._db.batches.find({"_id": {"$in": some}}, {"_id": 1})}
                gone = self._db.ledger.find({"_id": {"$in": some}, "state": {"$ne": "accepted"}}, {"_id": 1})
                for batch_id in {row["_id"] for row in gone} - known:
                    self._blobs.delete_tree(batch_prefix(batch_id))
        for name in self._blobs.folders(TEMP):  # a tree whose removal was broken off
            if time.monotonic() > self._clean_until:
                return True
            self._blobs.delete_tree(f"{TEMP}/{name}")
        for blob in self._blobs.list(TEMP):
            if time.time() - blob.modified > _TEMP_AGE_S:
                self._blobs.delete(blob.key)
        return False

    def _finish_deletions(self) -> bool:
        """Remove the files of deleted batches: soon, lest a DELETE was broken off; and once more when no worker can still write one."""
        steps = ((deletion.uncleared(self._db), deletion.cleared), (deletion.deletable(self._db, self._longest_s), deletion.finish_delete))
        for batch_ids, say in steps:
            for batch_id in batch_ids:
                if time.monotonic() > self._clean_until:
                    return True
                self._blobs.delete_tree(batch_prefix(batch_id))
                self._blobs.delete(spool_key(batch_id))
                say(self._db, batch_id)
        return False
