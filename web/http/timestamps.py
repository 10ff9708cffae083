"""Times as a client may send them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic_core import PydanticCustomError

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?\Z")


def parse_timestamp(value: object) -> datetime:
    """Read a time: RFC 3339 (UTC if it has no offset) or Unix seconds.

    :returns: naive UTC with milliseconds, the precision of the database.
    :raises PydanticCustomError: ``bad_timestamp``.
    """
    invalid = PydanticCustomError("bad_timestamp", "Give a time as RFC 3339, or as Unix seconds.")
    try:
        if isinstance(value, bool):
            raise invalid
        if isinstance(value, int | float):
            moment = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, str) and _RFC3339.match(value.strip()):
            text = value.strip().upper()
            leap = text[17:19] == "60"  # a leap second (RFC 3339, 5.7), which datetime cannot represent
            moment = datetime.fromisoformat(text[:17] + "59" + text[19:] if leap else text) + timedelta(seconds=leap)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        else:
            raise invalid
    except (ValueError, OverflowError, OSError) as error:
        raise invalid from error
    return moment.replace(tzinfo=None, microsecond=moment.microsecond // 1000 * 1000)
