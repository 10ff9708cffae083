"""The composition root: builds the database client, the blob store and the wakeup publishers of a process.

The web front, the workers, the sweep and their tests get these objects from ``open_stores``. A program that needs the
database alone calls ``shared.storage.mongo.connect``. Other Redis clients, which have timeouts of their own, are built by
``shared.queue.redis_client``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.queue.wakeups import WakeupPublisher
from shared.queues import QUEUES, WorkQueue
from shared.settings import Settings
from shared.storage.blobs import BlobStore
from shared.storage.identity import StoreIdentity
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db, connect


@dataclass(frozen=True, slots=True)
class Stores:
    """The settings of a process, and its clients for MongoDB, the blob store and Redis. All members are thread-safe.

    Each process creates its own instance after it has been forked.
    """

    settings: Settings
    db: Db
    blobs: BlobStore
    identity: StoreIdentity
    wakeups: Mapping[WorkQueue, WakeupPublisher]

    def close(self) -> None:
        """Close all connections."""
        for publisher in self.wakeups.values():
            publisher.close()
        self.db.client.close()


def open_stores(settings: Settings, *, app: str, db: Db | None = None, blobs: BlobStore | None = None) -> Stores:
    """Create the clients that the settings describe. Each client connects on its first use.

    :param app: name of the process, as shown in MongoDB's log.
    :param db: database to use instead of the one in the settings.
    :param blobs: blob store to use instead of the one in the settings.
    """
    db = connect(settings.mongo, app=app) if db is None else db
    blobs = LocalBlobs(settings.blobs.root) if blobs is None else blobs
    return Stores(
        settings=settings,
        db=db,
        blobs=blobs,
        identity=StoreIdentity(db, blobs),
        wakeups={work_queue: WakeupPublisher(settings.redis, work_queue) for work_queue in QUEUES},
    )
