"""Remove the ids of merged and deleted tags from images, and correct the counts of tags."""

import logging
import time
from typing import Final

from shared.bootstrap import Stores
from shared.catalog import retired_tags
from shared.errors import ShelfsightError, TooSlow
from shared.ledger import tag_recounts

_log = logging.getLogger("shelfsight.error")
_TAGS_AT_ONCE: Final = 1000
_RECOUNTED_AT_ONCE: Final = 20
_LONGEST_RECOUNT_S: Final = 5.0


class TagSweep:
    """Removes the ids of merged and deleted tags from images, and counts the images of some tags again.

    The next call continues where one has stopped.
    """

    def __init__(self, stores: Stores) -> None:
        self._db = stores.db
        self._left: list[str] = []
        self._last_recounted = ""

    def clean(self, until: float) -> bool:
        """Remove the ids in transactions of a limited size. If nothing is left, recount the next tags.

        A tag with more images than can be counted until the time limit is skipped.

        :param until: time limit, in ``time.monotonic`` seconds. At least one transaction is made.
        :returns: whether the time limit was reached, so there is more to do.
        """
        self._left = self._left or retired_tags.find(self._db, _TAGS_AT_ONCE)
        while self._left:
            if self._clean(self._left[0], until):
                del self._left[0]
            if time.monotonic() > until:
                return bool(self._left)
        self._recount_due()
        self._recount(until)
        return False

    def _recount_due(self) -> None:
        """Recount one tag whose counts are known to be wrong, also if this takes longer than the time limit."""
        for tag_id in tag_recounts.find_due(self._db, 1):
            self._recount_tag(tag_id, _LONGEST_RECOUNT_S)

    def _recount(self, until: float) -> None:
        """Recount the next tags in the order of their ids. After the last one, the next call begins with the first."""
        found = tag_recounts.find_tags(self._db, self._last_recounted, _RECOUNTED_AT_ONCE)
        for tag_id in found:
            left = min(until - time.monotonic(), _LONGEST_RECOUNT_S)
            if left <= 0:
                return
            self._last_recounted = tag_id
            self._recount_tag(tag_id, left)
        if len(found) < _RECOUNTED_AT_ONCE:
            self._last_recounted = ""

    def _recount_tag(self, tag_id: str, deadline_s: float) -> None:
        try:
            for wrong in tag_recounts.recount(self._db, tag_id, deadline_s=deadline_s):
                _log.error("sweep: tag %s had the count %d in the store %r; corrected to %d", wrong.tag, wrong.before, wrong.store, wrong.after)
        except TooSlow:
            return
        except ShelfsightError as error:
            _log.warning("sweep: tag %s was not counted: %s: %s", tag_id, error.code, error.detail)

    def _clean(self, tag_id: str, until: float) -> bool:
        """Clean up one tag, and return whether this is done for now. An error is logged, and the tag is left for later."""
        try:
            while retired_tags.clean_images(self._db, tag_id):
                if time.monotonic() > until:
                    return False
            retired_tags.forget(self._db, tag_id)
        except ShelfsightError as error:
            _log.warning("sweep: tag %s was not cleaned up: %s: %s", tag_id, error.code, error.detail)
        return True
