"""Times as clients send them become naive UTC with milliseconds."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

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


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60.250Z", "2016-12-31t18:59:60.25-05:00", "2016-12-31 23:59:60.250"])
def test_a_leap_second_is_the_next_second(text: str) -> None:
    assert parse_timestamp(text) == datetime(2017, 1, 1, 0, 0, 0, 250_000)


@pytest.mark.parametrize("value", [1767225600, 1767225600.0, "1767225600", " 1767225600.000 ", "2026-01-01T00:00:00z"])
def test_unix_seconds_can_be_a_number_or_a_string(value: object) -> None:
    assert parse_timestamp(value) == datetime(2026, 1, 1)


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-15T09:00:60Z", "2016-12-31T23:59:60-05:00", "2026-01-15T23:58:60Z", "2026-01-15T09:00:61Z",
        "9999-12-31T23:59:60Z", "1e9", "0x10", "١٧٦٧", "", "now", "1767225600000", 1767225600000, True, None, "2026-01-15", "2026-01-15T09:00Z",
        "2026-01-15T09:00:00 02:00",
    ],
)  # fmt: skip
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(PydanticCustomError) as refused:
        parse_timestamp(value)
    assert refused.value.type == "bad_timestamp"
