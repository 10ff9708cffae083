"""The indexes and collections that older versions use and this version does not.

Migrations do not drop them, because processes of the version before use them during a rolling update. ``scripts/admin migrate
--finish`` does (``shared.storage.migrations.update_end``). While the database has one of the indexes, processes of the version
before may be running, so an index that the version before declares and this version does not must be here.
"""

from typing import Final

SUPERSEDED: Final = {
    "batches": {
        "backlog": "contains the size and the age of open batches; replaced by open_batches",
        "spooled_1__id_1": "finds batches whose originals are still in a spool; replaced by spooled_1_open_1_finished_at_1",
        "unswept_1_finished_at_1": "finds batches with files to be deleted; replaced by unswept_1_open_1_finished_at_1",
    },
    "images": {
        "claimable": "finds the queued images of a store; replaced by claimable_by_turn",
        "unfinished_or_bad": "finds images in other states than done; replaced by rare_states",
        "store_name_1_batch_id_-1": "lists the images of a store; replaced by store_name_1__id_-1",
        "camera_id_1_batch_id_-1": "lists the images of a camera; replaced by camera_id_1__id_-1",
        "timestamp_-1_batch_id_-1_status_1": "lists images by time; replaced by timestamp_-1__id_-1_status_1",
        "barcode_1_batch_id_-1": "lists the images with a barcode; replaced by barcode_1__id_-1",
        "detections.label_1_batch_id_-1": "lists the images with a detected label; replaced by detections.label_1__id_-1",
        "tags_1_batch_id_-1": "lists the images with a tag, as tags were stored before; replaced by tagged",
    },
    "inspection_results": {"used_at_1": "finds the results that have not been used for the longest time; replaced by sizes"},
}
"""For each collection, the names of the indexes, what they are for, and which indexes have replaced them."""

SUPERSEDED_COLLECTIONS: Final = frozenset({"turns"})
"""``turns`` had the turns of stores; replaced by ``account_turns`` and ``store_turns``."""
