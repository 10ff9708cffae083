"""Times as clients send them become naive UTC with milliseconds."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.web.json_uploads import RELAXED
from web.http.timestamps import parse_timestamp


@RELAXED
@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2999, 1, 1)))
def test_times_are_returned_in_utc_with_milliseconds(moment: datetime) -> None:
    kept = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert parse_timestamp(moment.isoformat(timespec="microseconds")) == kept
    assert parse_timestamp(moment.isoformat(timespec="microseconds") + "Z") == kept
    assert parse_timestamp(moment.isoformat(timespec="microseconds") + "+00:00") == kept
    assert parse_timestamp(moment.isoformat(timespec="microseconds") + "-02:30") == kept + timedelta(
        hours=2, minutes=30
    )


def test_a_leap_second_is_the_next_second() -> None:
    assert parse_timestamp("2016-12-31T23:59:60.250Z") == datetime(2017, 1, 1, 0, 0, 0, 250_000)
