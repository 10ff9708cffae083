"""The time of this machine, in UTC, with the precision of MongoDB."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the current time as naive UTC, in whole milliseconds, as MongoDB stores it."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
