"""The arguments and options of ``scripts/admin`` that describe users and keys."""

from datetime import datetime, timedelta
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.administration.parameters import EMAIL, EXPIRY, KEY_ID, KEY_NAME, STORE, URL, USERNAME
from shared.clock import utc_now


@pytest.mark.parametrize(("text", "expected"), [("90d", timedelta(days=90)), ("1h", timedelta(hours=1)), ("99999d", timedelta(days=99999))])
def test_a_duration_is_added_to_the_current_time(text: str, expected: timedelta) -> None:
    before = utc_now()
    assert before + expected <= EXPIRY.convert(text, None, None) <= utc_now() + expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2999-06-30T02:00:00+02:00", datetime(2999, 6, 30)),
        ("2999-06-30T00:00:00", datetime(2999, 6, 30)),
        ("32503680000", datetime(3000, 1, 1)),
    ],
)
def test_a_time_is_converted_to_utc(text: str, expected: datetime) -> None:
    assert EXPIRY.convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["", "0d", "-1d", "90", "90 d", "1.5d", "90d\n", "100000d", "\uff11d", "tomorrow", "2020-01-01T00:00:00Z", "2999-02-30T00:00:00Z", "9" * 400])
def test_an_expiry_in_the_past_or_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="Give a time in the future"):
        EXPIRY.convert(text, None, None)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (USERNAME, "-alice"),
        (USERNAME, "alice@example.com"),
        (USERNAME, "alice\n"),
        (USERNAME, "a" * 65),
        (EMAIL, "alice"),
        (EMAIL, "alice@exam ple"),
        (STORE, " "),
        (STORE, "a\x1b[2J"),
        (STORE, "a" * 201),
        (STORE, "\udcff"),
        (KEY_NAME, ""),
        (KEY_NAME, "a" * 101),
        (KEY_ID, "sfs_0123456789abcdef"),
        (URL, "shelf.example"),
        (URL, "javascript:alert(1)"),
    ],
)
def test_a_text_that_the_api_would_refuse_is_refused(kind: click.ParamType[Any], text: str) -> None:
    with pytest.raises(click.BadParameter) as refusal:
        kind.convert(text, None, None)
    assert refusal.value.message.endswith(".")


@given(st.text())
def test_any_text_is_an_expiry_or_is_refused_with_a_sentence(text: str) -> None:
    try:
        assert EXPIRY.convert(text, None, None) > utc_now()
    except click.BadParameter:
        return
