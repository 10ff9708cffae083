"""Records in ``Image.corrections`` what people change about an image, as a part of the update that changes it.

The number of entries and their bytes are limited, so that lists of images, which read large documents one by one, do not get
slower. The count says how many entries have been dropped.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import bson

from shared.clock import utc_now
from shared.storage.mongo import Document

MAX_CORRECTIONS: Final = 20
MAX_BYTES: Final = 6 * 1024
"""Maximum size of all entries in bytes, as MongoDB stores them. The largest change of one request, which corrects all fields of an
image to texts of the maximum length, needs less."""
MAX_NAMED_TAGS: Final = 20
"""Maximum number of removed tags that an entry names."""
_WITHOUT_VALUES: Final = frozenset({"extra"})


def of_fields(image: Document, new: Mapping[str, Any], by: str | None) -> Document:
    """Return the fields to set that record the correction of fields.

    :param image: the stored image before the change.
    :param new: the fields that change, with their new values.
    :param by: who makes the change (``Principal.by``).
    """
    entries = [
        {"field": name} | ({} if name in _WITHOUT_VALUES else {"from": image[name], "to": value}) for name, value in sorted(new.items())
    ]
    return _with(image, entries, by)


def of_annotations(image: Document, boxes: int | None, by: str | None) -> Document:
    """Return the fields to set that record a change of annotations.

    :param boxes: the number of annotations after the change; None if all were removed, as if nobody had looked at the image.
    """
    return _with(image, [{"field": "annotations", "boxes": boxes}], by)


def of_removed_tags(image: Document, tag_ids: Sequence[str], by: str | None, at: datetime | None = None) -> Document:
    """Return the fields to set that record that at least one tag was removed. Added tags are in the tags of the image.

    :param at: the time of the change (naive UTC); None means now.
    """
    return _with(image, [{"field": "tags", "removed": list(tag_ids[:MAX_NAMED_TAGS]), "number": len(tag_ids)}], by, at)


def _with(image: Document, entries: Sequence[Document], by: str | None, at: datetime | None = None) -> Document:
    before = image.get("corrections") or {"entries": [], "count": 0}
    added = {"at": at or utc_now(), "by": by}
    all_entries = [*before["entries"], *(added | entry for entry in entries)]
    return {"corrections": {"entries": _last(all_entries), "count": before["count"] + len(entries)}}


def _last(entries: Sequence[Document]) -> list[Document]:
    """Return the last entries that are within the limits."""
    kept, size = 0, 0
    for entry in reversed(entries[-MAX_CORRECTIONS:]):
        size += len(bson.encode(entry))
        if size > MAX_BYTES:
            break
        kept += 1
    return list(entries[len(entries) - kept :])
