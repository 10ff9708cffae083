"""Parse the times in requests."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic_core import PydanticCustomError

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?\Z")


def parse_timestamp(value: object) -> datetime:
    """Parse a time that is either an RFC 3339 string or a number of Unix seconds.

    An RFC 3339 string without an offset is interpreted as UTC.

    :returns: the time in UTC, as a ``datetime`` without a time zone. It is truncated to milliseconds, which is the precision
        of the database.
    :raises PydanticCustomError: when the time is invalid (``bad_timestamp``).
    """
    invalid = PydanticCustomError("bad_timestamp", "The time is invalid; send an RFC 3339 time or Unix seconds.")
    try:
        if isinstance(value, bool):
            raise invalid
        if isinstance(value, int | float):
            moment = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, str) and _RFC3339.match(value.strip()):
            text = value.strip().upper()
            leap = text[17:19] == "60"  # whether this is a leap second (RFC 3339, 5.7); datetime cannot represent it
            moment = datetime.fromisoformat(text[:17] + "59" + text[19:] if leap else text) + timedelta(seconds=leap)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        else:
            raise invalid
    except (ValueError, OverflowError, OSError) as error:
        raise invalid from error
    return moment.replace(tzinfo=None, microsecond=moment.microsecond // 1000 * 1000)
