"""Records whether processes of the version before can still be running. See ``update_end``.

The version before cannot show the old result of an image that is processed again: its sweep deletes the files of all attempts
but the last one, and its workers do not record which attempt is shown.
"""

from typing import Final

from shared.storage.indexes import find_superseded_indexes
from shared.storage.migrations.run import Run

SUMMARY: Final = "it is recorded whether processes of the version before can still be running"


def apply(run: Run) -> None:
    """Record it: they can if the database has indexes that only older versions use."""
    run.store("update_finished", value=not find_superseded_indexes(run.db))
