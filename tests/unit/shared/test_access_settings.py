"""The service does not start with access settings that are unsafe or not supported."""

import json
import string
from pathlib import Path
from random import Random

import pytest
from pydantic import ValidationError

from shared import settings
from shared.accounts.signing_keys import open_signing_keys
from shared.settings.access import parse_signing_keys

SECRET = "0123456789abcdefghijklmnopqrstuv"
KEYS = json.dumps({"new": SECRET, "old": SECRET[::-1]})
RANDOM_KEYS = json.dumps({"new": "8f14e45fceea167a5a36dedd4bea2543", "old": "kB3v-9Qz_7LmXw2RtY5uHs8JpDf6GcNa"})


def test_access_is_off_by_default() -> None:
    assert not settings.Access().is_on


def test_the_signing_keys_keep_their_order() -> None:
    assert list(parse_signing_keys(KEYS).items()) == [("new", SECRET.encode()), ("old", SECRET[::-1].encode())]


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


def test_production_needs_credentials_and_closes_the_sign_up() -> None:
    production = settings.Access(environment="production", signing_keys=RANDOM_KEYS)
    assert (production.is_on, production.signup_mode) == (True, "closed")
    assert settings.Access(environment="production", signing_keys=RANDOM_KEYS, signup="invited").signup_mode == "invited"
    with pytest.raises(ValidationError, match="ACCESS=off is not allowed"):
        settings.Access(environment="production", access="off", signing_keys=RANDOM_KEYS)
    with pytest.raises(ValidationError, match="SIGNING_KEYS is missing, and SHELFSIGHT_ENV=production needs it"):
        settings.Access(environment="production")


@pytest.mark.parametrize(
    "secret",
    ["0123456789abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba987654", "ABCDEFGHIJKLMNOP0123456789ponmlkjihg", "change-this-secret-before-production", "<32 random characters, For EXAMPLE>", "qwertyuiopasdfghjklzxcvbnm1234567"],
    ids=["ascending", "descending", "several-runs", "change-this", "example", "keyboard"],
)
def test_secrets_that_are_published_are_refused_in_production(tmp_path: Path, secret: str) -> None:
    keys = json.dumps({"1": secret})
    assert settings.Access(access="on", signing_keys=keys).is_on
    with pytest.raises(ValidationError) as raised:
        settings.Access(environment="production", signing_keys=keys)
    sentence = settings.explain(raised.value)
    assert "looks like an example that others know" in sentence
    assert secret not in sentence
    file = tmp_path / "keys"
    file.write_text(keys)
    open_signing_keys(settings.Access(access="on", signing_keys_file=file))
    with pytest.raises(ValueError, match=r"the secret of the key .* looks like an example"):
        open_signing_keys(settings.Access(environment="production", signing_keys_file=file))


def test_random_secrets_are_not_taken_for_examples() -> None:
    random = Random(17)
    for alphabet in ("0123456789abcdef", string.ascii_letters + string.digits + "-_"):
        secrets = {str(number): "".join(random.choices(alphabet, k=32)) for number in range(1000)}
        assert len(parse_signing_keys(json.dumps(secrets), is_production=True)) == 1000


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_an_open_service_listens_on_loopback_only(host: str) -> None:
    web = settings.Web(host=host)
    with pytest.raises(ValidationError, match=f"WEB_HOST={host} is not allowed"):
        settings.Settings(access=settings.Access(), web=web)
    assert settings.Settings(access=settings.Access(access="on", signing_keys=KEYS), web=web).web.host == host
    assert settings.Settings(access=settings.Access(), web=settings.Web(host=host, open_behind_loopback_proxy=True)).web.host == host
