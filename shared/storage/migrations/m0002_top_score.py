"""Sets ``top_score``, the highest score of the detections, in the images that were processed before workers wrote it.

This version also replaces the indexes of the images whose last key was ``batch_id`` by indexes whose last key is ``_id``. The
old ones are not dropped here, because code of the version before names one of them (``unfinished_or_bad``) in its
queries while it runs beside this version, and would fail without it.
"""

from typing import Final

from shared.storage.migrations import late_results
from shared.storage.migrations.run import Run

SUMMARY: Final = "images with detections get the field top_score"


def apply(run: Run) -> None:
    """Set the field in all documents with detections and without the field."""
    run.store_once("late_from", late_results.find_first_late_id)
    for ids in run.id_ranges("images"):
        late_results.set_scores(run.db, ids)
