"""Publish the variants of images, so that a plain file server can serve them."""

import logging
from collections.abc import Mapping
from typing import Final

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import ShelfsightError
from shared.ledger.shown_results import read_shown_fences
from shared.storage.blob_keys import image_prefix

_log = logging.getLogger("shelfsight.error")
_ROUNDS: Final = 4


def publish(stores: Stores, fences: Mapping[str, int], *, may_be_newer: bool = True) -> bool:
    """Publish the variants of images, each under the fence with which they are shown.

    Meanwhile, another worker may have stored and published a newer result of an image. So the fences are read again
    afterwards, and what has changed is published again. Without this, the older files would be published last. If this process
    is frozen or dies in between, the sweep publishes the newer files (``worker.sweep.lost_claims``).

    :param fences: for each image, the fence that was read or stored for it.
    :param may_be_newer: False if a newer result of any of the images is published later in any case, so that the fences need not
        be read again.
    :returns: False if something could not be published. A missing link only makes requests slower, because the web process
        serves the files then.
    """
    left = dict(fences)
    for _ in range(_ROUNDS):
        if not left:
            break
        try:
            for image_id, fence in left.items():
                stores.blobs.publish(image_prefix(image_id), str(fence))
        except ShelfsightError as error:
            _log.warning("the variants of image %s, and of further images, were not published: %s", image_id, error.code)
            return False
        failpoints.reach("14-files-published")
        if not may_be_newer:
            break
        current = read_shown_fences(stores.db, left)
        left = {image_id: fence for image_id, fence in current.items() if fence > left[image_id]}
    return True
