"""Delete the files that workers wrote under claims that they lost.

A worker writes the files of an image into a folder named after the fence of its claim. Only the folder with the current
fence of the image is needed. The folders of all other fences are deleted.
"""

import time
from typing import Final

from shared.bootstrap import Stores
from shared.storage.blob_keys import image_prefix
from shared.storage.mongo import translate_errors
from worker.sweep.deletions import longest_write_s

_LIMIT: Final = 200


def clean(stores: Stores, until: float) -> bool:
    """Delete the files of lost claims. Only batches to which no worker can still write files are cleaned.

    These are the batches that finished more than ``longest_write_s`` seconds ago.

    :param until: time limit, in ``time.monotonic`` seconds.
    :returns: whether there is more to do.
    """
    longest_ms = int(longest_write_s(stores.settings) * 1000)
    old = {"$expr": {"$lt": ["$finished_at", {"$subtract": ["$$NOW", longest_ms]}]}}
    with translate_errors():
        found = stores.db.batches.find({"unswept": True, "open": {"$ne": True}, **old}, {"_id": 1}).limit(_LIMIT)
        due = [row["_id"] for row in found]
    for batch_id in due:
        if time.monotonic() > until:
            return True
        with translate_errors():
            images = list(stores.db.images.find({"batch_id": batch_id}, {"work.fence": 1}).batch_size(2000))
        for image in images:
            prefix = image_prefix(image["_id"])
            for fence in stores.blobs.folders(prefix):
                if fence != str(image["work"]["fence"]):
                    stores.blobs.delete_tree(f"{prefix}/{fence}")
        with translate_errors():
            stores.db.batches.update_one({"_id": batch_id}, {"$unset": {"unswept": ""}})
    return len(due) == _LIMIT
