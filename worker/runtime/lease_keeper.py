"""Keeping a claim while its work goes on: a thread renews it at a third of its length."""

import threading
import time

from shared.errors import ShelfsightError
from shared.ledger import claims
from shared.storage.mongo import Db, Document


class Lease:
    """The images that this process holds. ``lost`` names those that somebody else may have by now."""

    def __init__(self, db: Db, owner: str, length_s: float) -> None:
        """Start the thread; it ends with the process."""
        self._db, self._owner, self._length = db, owner, length_s
        self._held: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="lease", daemon=True).start()

    def hold(self, images: list[Document], hard_limit_s: float) -> None:
        """Renew these from now on, for ``hard_limit_s`` seconds at the longest."""
        until = time.monotonic() + hard_limit_s
        with self._lock:
            for image in images:
                self._held[image["_id"]] = image["work"]["fence"]
                self._until[image["_id"]] = until

    def drop(self, images: list[Document]) -> None:
        """Renew these no longer."""
        with self._lock:
            for image in images:
                self._held.pop(image["_id"], None)
                self._until.pop(image["_id"], None)

    def holds(self, image: Document) -> bool:
        """Say whether an image was still ours when that was last asked."""
        return self.still(image["_id"], image["work"]["fence"])

    def still(self, image_id: str, fence: int) -> bool:
        """Say the same of an image under this fence."""
        with self._lock:
            return self._held.get(image_id) == fence

    def _run(self) -> None:
        while True:
            time.sleep(self._length / 3)
            now = time.monotonic()
            with self._lock:
                due = [(name, fence) for name, fence in self._held.items() if self._until[name] > now]
            if not due:
                continue
            try:
                kept = claims.renew(self._db, due, self._owner, self._length)
            except ShelfsightError:
                continue  # the database is away: the fence decides at the end
            with self._lock:
                for name, fence in due:
                    if name not in kept and self._held.get(name) == fence:
                        del self._held[name]
                        del self._until[name]
