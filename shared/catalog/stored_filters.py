"""The filters of a job in the form in which it stores them.

A job stores the id of the tag that was named, and not all ids that mean it. Tags can be merged and deleted while the job waits,
so what the id means is read again before each part.
"""

from collections.abc import Mapping
from typing import Any

from pymongo.client_session import ClientSession

from shared.catalog import retired_tags, tags
from shared.ledger.filters import Filters
from shared.storage.mongo import Db, Document


class TagDeleted(Exception):
    """The tag that the filters name was deleted."""


def to_document(filters: Filters) -> Document:
    """Return filters as a job stores them.

    :param filters: ``tag_ids`` are what ``tags.find_ids`` has returned, so the first of them is the id of the tag itself.
    """
    document = filters.to_document()
    if filters.tag_ids:
        document["tag"] = document.pop("tag_ids")[0]
    if filters.untagged is not None:
        document["untagged"] = True
    return document


def read(db: Db, session: ClientSession | None, document: Mapping[str, Any]) -> Filters:
    """Return the filters that a job has stored, with the ids that their tag has now. Errors of the driver pass.

    :raises TagDeleted: when the tag was deleted.
    """
    values = dict(document)
    if "tag" in values:
        tag_id = values.pop("tag")
        present_id = tags.find_present_ids(db, session, [tag_id]).get(tag_id)
        if present_id is None:
            raise TagDeleted
        values["tag_ids"] = tags.find_aliases(db, session, [present_id])[present_id]
    if "untagged" in values:
        values["untagged"] = retired_tags.read_deleted(db, session)
    return Filters.from_document(values)
