"""Parse the times in requests."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic_core import PydanticCustomError

_UNIX_SECONDS: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?\Z")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?\Z")


def parse_timestamp(value: object) -> datetime:
    """Parse a time that is either an RFC 3339 string, or Unix seconds as a number or as a string.

    An RFC 3339 string without an offset is interpreted as UTC. A leap second, which ``datetime`` cannot represent, is the
    next second. It can only be at the end of a day in UTC (RFC 3339, 5.7).

    :returns: the time in UTC, as a ``datetime`` without a time zone. It is truncated to milliseconds, which is the precision
        of the database.
    :raises PydanticCustomError: when the time is invalid (``bad_timestamp``).
    """
    invalid = PydanticCustomError("bad_timestamp", "The time is invalid; send an RFC 3339 time or Unix seconds.")
    try:
        if isinstance(value, str) and _UNIX_SECONDS.match(value.strip()):
            value = float(value)
        if isinstance(value, bool):
            raise invalid
        if isinstance(value, int | float):
            moment = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, str) and _RFC3339.match(value.strip()):
            moment = _parse_rfc3339(value.strip().upper())
        else:
            raise invalid
    except (ValueError, OverflowError, OSError) as error:
        raise invalid from error
    return moment.replace(tzinfo=None, microsecond=moment.microsecond // 1000 * 1000)


def _parse_rfc3339(text: str) -> datetime:
    is_leap_second = text[17:19] == "60"
    moment = datetime.fromisoformat(text[:17] + "59" + text[19:] if is_leap_second else text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if not is_leap_second:
        return moment
    if (moment.hour, moment.minute) != (23, 59):
        raise ValueError("a leap second that is not at the end of a day")
    return moment + timedelta(seconds=1)
