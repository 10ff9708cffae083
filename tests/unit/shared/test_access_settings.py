"""The service does not start with access settings that are unsafe or not supported."""

import json

import pytest
from pydantic import ValidationError

from shared import settings

SECRET = "0123456789abcdefghijklmnopqrstuv"
KEYS = json.dumps({"new": SECRET, "old": SECRET[::-1]})


def test_access_is_off_by_default() -> None:
    assert not settings.Access().is_on


def test_the_signing_keys_keep_their_order() -> None:
    assert list(settings.Access(signing_keys=KEYS).parse_signing_keys().items()) == [("new", SECRET.encode()), ("old", SECRET[::-1].encode())]


def test_access_needs_signing_keys() -> None:
    assert settings.Access(access="on", signing_keys=KEYS).is_on
    with pytest.raises(ValidationError, match="SIGNING_KEYS is missing"):
        settings.Access(access="on")


@pytest.mark.parametrize(
    "keys",
    ["secret", "[]", "{}", '{"a": 1}', json.dumps({"a": SECRET[:-1]}), json.dumps({"a": "x" * 64}), json.dumps({"../a": SECRET}), json.dumps({"": SECRET})],
)
def test_unsafe_signing_keys_are_refused_and_not_shown(keys: str) -> None:
    with pytest.raises(ValidationError) as raised:
        settings.Access(signing_keys=keys)
    assert "SIGNING_KEYS" in settings.explain(raised.value)
    assert SECRET[:-1] not in settings.explain(raised.value)


def test_the_signing_keys_are_not_part_of_a_representation() -> None:
    assert SECRET not in repr(settings.Access(signing_keys=KEYS))


def test_production_is_refused_until_files_and_pages_are_protected() -> None:
    with pytest.raises(ValidationError, match="SHELFSIGHT_ENV=production is not supported yet"):
        settings.Access(environment="production")


def test_access_is_refused_behind_a_proxy_that_serves_files_itself() -> None:
    access = settings.Access(access="on", signing_keys=KEYS)
    with pytest.raises(ValidationError, match="OPEN_BEHIND_LOOPBACK_PROXY"):
        settings.Settings(access=access, web=settings.Web(host="0.0.0.0", open_behind_loopback_proxy=True))


def test_access_alone_does_not_permit_another_address() -> None:
    with pytest.raises(ValidationError, match="WEB_HOST"):
        settings.Web(host="0.0.0.0")
