"""Tokens: only those that were signed for their purpose, with a local key and HS256, are accepted, and only in their time."""

import base64
import contextlib
import hmac
import json
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import RefreshClaims, SessionClaims, TokenSigner
from shared.errors import Environment, Unauthorized

NOW = 1_800_000_000
KEYS = {"new": b"n" * 32, "old": b"o" * 32}
HEADER = {"alg": "HS256", "typ": "access+jwt", "kid": "new"}
CLAIMS = {
    "iss": "shelfsight", "aud": "shelfsight:access", "sub": "user", "sid": "session",
    "iat": NOW, "nbf": NOW, "exp": NOW + 900,
}  # fmt: skip
REFRESH_HEADER = HEADER | {"typ": "refresh+jwt"}
REFRESH_CLAIMS = CLAIMS | {"aud": "shelfsight:refresh", "gen": 7}
COOKIE_HEADER = HEADER | {"typ": "cookie+jwt"}
COOKIE_CLAIMS = CLAIMS | {"aud": "shelfsight:cookie"}
PUBLIC_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
"""
class _Missing(Enum):
    """A value that stands for a missing member. Its representation is the same in every process, unlike that of ``object()``."""

    VALUE = 0


MISSING = _Missing.VALUE


def signer(now: float = NOW, keys: dict[str, bytes] = KEYS) -> TokenSigner:
    return TokenSigner(FixedSigningKeys(keys), lambda: now)


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def make_token(header: Any = HEADER, claims: Any = CLAIMS, key: bytes = KEYS["new"], digest: str = "sha256") -> str:
    """Return a token as anybody can make it who has the key."""
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(hmac.digest(key, signed.encode(), digest))}"


def without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


def assert_refused(token: str, now: float = NOW, keys: dict[str, bytes] = KEYS) -> None:
    for read in (signer(now, keys).read_access, signer(now, keys).read_refresh, signer(now, keys).read_cookie):
        with pytest.raises(Unauthorized) as refusal:
            read(token)
        assert refusal.value.code == "unauthorized"
        assert refusal.value.detail in {
            "The access token is invalid or has expired; get another one with POST /refresh, or sign in.",
            "The refresh token is invalid or has expired; sign in again.",
            "The session cookie is invalid or has expired; sign in again.",
        }
        assert refusal.value.__cause__ is None


def test_the_tokens_made_by_hand_in_these_tests_are_valid() -> None:
    assert signer().read_access(make_token()) == SessionClaims("user", "session")
    assert signer().read_refresh(make_token(REFRESH_HEADER, REFRESH_CLAIMS)) == RefreshClaims("user", "session", 7)
    assert signer().read_cookie(make_token(COOKIE_HEADER, COOKIE_CLAIMS)) == SessionClaims("user", "session")


def test_an_issued_token_is_read_as_what_it_was_issued_for() -> None:
    token, lifetime_s = signer(NOW + 0.7).issue_access("user", "session")
    assert lifetime_s == 15 * 60
    assert signer().read_access(token) == SessionClaims("user", "session")
    token = signer().issue_refresh("user", "session", 3, NOW + 86_400.5)
    assert signer(NOW + 86_399).read_refresh(token) == RefreshClaims("user", "session", 3)
    assert_refused(token, NOW + 86_400)
    token = signer().issue_cookie("user", "session", NOW + 86_400.5)
    assert signer(NOW + 86_399).read_cookie(token) == SessionClaims("user", "session")
    assert_refused(token, NOW + 86_400)


def test_a_token_of_one_kind_is_not_accepted_as_another_kind() -> None:
    tokens = {
        signer().read_access: signer().issue_access("user", "session")[0],
        signer().read_refresh: signer().issue_refresh("user", "session", 0, NOW + 900),
        signer().read_cookie: signer().issue_cookie("user", "session", NOW + 900),
    }
    for read, own in tokens.items():
        for token in set(tokens.values()) - {own}:
            with pytest.raises(Unauthorized):
                read(token)
    kinds = ((HEADER, CLAIMS), (REFRESH_HEADER, REFRESH_CLAIMS), (COOKIE_HEADER, COOKIE_CLAIMS))
    for header, own_claims in kinds:
        for _, claims in kinds:
            if claims is not own_claims:
                assert_refused(make_token(header, claims | {"gen": 7}))


@pytest.mark.parametrize("now", [NOW - 60, NOW, NOW + 899, NOW + 899.9])
def test_a_token_is_valid_in_its_time_and_a_minute_before(now: float) -> None:
    assert signer(now).read_access(make_token()).user_id == "user"


@pytest.mark.parametrize("now", [0, NOW - 61, NOW + 900, NOW + 901, NOW + 10**9])
def test_a_token_is_refused_outside_its_time(now: float) -> None:
    assert_refused(make_token(), now)
    assert_refused(make_token(REFRESH_HEADER, REFRESH_CLAIMS), now)


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_each_time_at_which_a_token_begins_is_checked(claim: str) -> None:
    assert signer().read_access(make_token(claims=CLAIMS | {claim: NOW + 60})).user_id == "user"
    assert_refused(make_token(claims=CLAIMS | {claim: NOW + 61}))


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize(
    "value",
    [MISSING, None, True, False, "", "other", str(NOW + 900), 1.5, NOW + 900.5, float("nan"), float("inf"), [], ["shelfsight:access"], {}],
    ids=repr,
)  # fmt: skip
def test_a_missing_or_wrong_claim_is_refused(name: str, value: Any) -> None:
    if name in {"sub", "sid"} and isinstance(value, str):
        return  # any text is an id
    assert_refused(make_token(claims=without(CLAIMS, name) if value is MISSING else CLAIMS | {name: value}))


@pytest.mark.parametrize("value", [MISSING, None, True, "7", 7.0, [7]], ids=repr)
def test_a_refresh_token_without_a_generation_is_refused(value: Any) -> None:
    claims = without(REFRESH_CLAIMS, "gen") if value is MISSING else REFRESH_CLAIMS | {"gen": value}
    assert_refused(make_token(REFRESH_HEADER, claims))


@pytest.mark.parametrize(("algorithm", "digest"), [("HS384", "sha384"), ("HS512", "sha512"), ("RS256", "sha256"), ("ES256", "sha256"), ("none", "sha256"), ("hs256", "sha256"), ("", "sha256")])  # fmt: skip
def test_another_algorithm_is_refused_even_with_the_right_key(algorithm: str, digest: str) -> None:
    assert_refused(make_token(HEADER | {"alg": algorithm}, digest=digest))


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
def test_a_signature_by_another_algorithm_than_the_header_names_is_refused(digest: str) -> None:
    assert_refused(make_token(digest=digest))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256"])
def test_a_token_without_a_signature_is_refused(algorithm: str) -> None:
    unsigned = make_token(HEADER | {"alg": algorithm}).rpartition(".")[0]
    assert_refused(unsigned)
    assert_refused(unsigned + ".")
    assert_refused(make_token({"alg": algorithm, "typ": "access+jwt"}).rpartition(".")[0] + ".")


def test_a_public_key_or_an_empty_key_is_not_the_secret() -> None:
    for algorithm in ("HS256", "RS256", "ES256"):
        assert_refused(make_token(HEADER | {"alg": algorithm}, key=PUBLIC_KEY))
        assert_refused(make_token(HEADER | {"alg": algorithm}, key=b""))


@pytest.mark.parametrize(
    "kid", [MISSING, None, "", "foreign", "../../dev/null", "/proc/self/environ", "new\0", "New", "new ", "' or 1=1 --", "x" * 3000, 0, True, ["new"], {"new": 1}, {"$ne": ""}],
    ids=lambda kid: repr(kid)[:30],
)  # fmt: skip
def test_a_foreign_key_id_is_refused(kid: Any) -> None:
    header = without(HEADER, "kid") if kid is MISSING else HEADER | {"kid": kid}
    assert_refused(make_token(header))
    assert_refused(make_token(header, key=b""))


def test_the_key_id_of_another_local_key_is_refused() -> None:
    assert_refused(make_token(HEADER | {"kid": "old"}))


FORGED_KEY = b"f" * 32


@pytest.mark.parametrize(
    "member",
    [
        {"jwk": {"kty": "oct", "k": encode(FORGED_KEY)}}, {"jku": "https://127.0.0.1/keys"}, {"x5u": "https://127.0.0.1/cert"},
        {"x5c": [encode(PUBLIC_KEY)]}, {"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"b64": True}, {"crit": []}, {"cty": "JWT"},
        {"typ": "JWT"}, {"typ": None}, {"typ": "ACCESS+JWT"}, {"alg": ["HS256"]}, {"alg": None}, {"key": "f" * 32},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_names_a_key_or_an_extension_is_refused(member: dict[str, Any]) -> None:
    assert_refused(make_token(HEADER | member))
    assert_refused(make_token(HEADER | member, key=FORGED_KEY))


def test_a_changed_payload_with_the_old_signature_is_refused() -> None:
    header, _, signature = make_token().split(".")
    for change in ({"sub": "admin"}, {"exp": NOW + 10**6}, {"sid": "other"}):
        assert_refused(f"{header}.{encode(json.dumps(CLAIMS | change).encode())}.{signature}")


def test_each_truncated_token_is_refused() -> None:
    token, _ = signer().issue_access("user", "session")
    for length in range(len(token)):
        assert_refused(token[:length])
    assert_refused(token[1:])


@given(st.data())
def test_a_token_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    token, _ = signer().issue_access("user", "session")
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters().filter(lambda drawn: drawn != token[position]))
    assert_refused(token[:position] + character + token[position + 1 :])


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "...", "a.b.c", "{}.{}.{}", "e30.e30.e30", "e30.e30.", "\0.\0.\0", "é.é.é", "\ud800.\udfff.\ud800", "x" * 1_000_000, "." * 1_000_000,
        make_token() + ".", make_token() + "." + make_token(), " " + make_token(), make_token() + "\n", make_token().replace(".", "。"),
        make_token(claims=CLAIMS | {"sub": "x" * 4000}), make_token(claims=CLAIMS | {"sub": "x" * 1_000_000}),
        make_token(claims=[CLAIMS]), make_token(claims="text"), make_token(claims=None), make_token(header=[HEADER]), make_token(header="text"),
        encode(b"[" * 3000) + ".e30.e30", encode(b'{"kid":' * 400) + ".e30.e30", encode(b'{"kid":' + b"9" * 3000 + b"}") + ".e30.e30", encode(b"\xff\xfe") + ".e30.e30",
    ],
    ids=lambda token: repr(token)[:20],
)  # fmt: skip
def test_any_other_text_is_refused(token: str) -> None:
    assert_refused(token)


def test_a_payload_that_is_not_json_is_refused_even_if_it_is_signed() -> None:
    for payload in (b"", b"\xff", b"[" * 2500, b'{"exp":' + b"9" * 2500):
        signed = f"{encode(json.dumps(HEADER).encode())}.{encode(payload)}"
        assert_refused(f"{signed}.{encode(hmac.digest(KEYS['new'], signed.encode(), 'sha256'))}")


@given(st.text(st.characters()), st.lists(st.binary(), max_size=4))
def test_a_random_text_is_refused(text: str, parts: list[bytes]) -> None:
    assert_refused(text)
    assert_refused(".".join(map(encode, parts)))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
JSON_VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=2)


@settings(max_examples=50)
@given(st.sampled_from([*HEADER, "crit", "jwk", "b64"]), st.sampled_from([*CLAIMS, "gen", "jti"]), JSON_VALUES)
def test_random_members_cause_no_other_error_than_unauthorized(member: str, claim: str, value: Any) -> None:
    assert_refused(make_token(HEADER | {member: value}))
    changed = {claim: value}
    for token in (make_token(claims=CLAIMS | changed), make_token(REFRESH_HEADER, REFRESH_CLAIMS | changed), make_token(COOKIE_HEADER, COOKIE_CLAIMS | changed)):
        for read in (signer().read_access, signer().read_refresh, signer().read_cookie):
            with contextlib.suppress(Unauthorized):
                read(token)


def test_keys_can_be_replaced_without_ending_sessions() -> None:
    old, _ = signer(keys={"old": KEYS["old"]}).issue_access("user", "session")
    new, _ = signer(keys=KEYS).issue_access("user", "session")
    assert signer(keys=KEYS).read_access(old) == signer(keys=KEYS).read_access(new)
    assert_refused(new, keys={"old": KEYS["old"]})  # the first key signs
    assert_refused(old, keys={"new": KEYS["new"]})  # the old key was removed
    assert_refused(old, keys={"old": KEYS["new"]})  # its id was given to another key


def test_without_keys_no_token_is_issued_or_accepted() -> None:
    nobody = signer(keys={})
    for issue in (
        lambda: nobody.issue_access("user", "session"), lambda: nobody.issue_refresh("user", "session", 0, NOW + 9), lambda: nobody.issue_cookie("user", "session", NOW + 9),
    ):  # fmt: skip
        with pytest.raises(Environment) as error:
            issue()
        assert error.value.code == "signing_keys_missing"
    assert_refused(make_token(), keys={})
    assert_refused(make_token(without(HEADER, "kid"), key=b""), keys={})


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 31, PUBLIC_KEY, b'{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}'], ids=repr)
def test_an_unsuitable_key_is_refused_when_the_service_starts(key: bytes) -> None:
    with pytest.raises(ValueError, match="signing key bad cannot be used") as error:
        signer(keys={"good": KEYS["new"], "bad": key})
    assert not key or key.decode() not in str(error.value)

