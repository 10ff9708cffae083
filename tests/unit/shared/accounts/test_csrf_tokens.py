"""CSRF tokens: each belongs to one session, and to the signing keys that are valid."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.accounts.csrf_tokens import CsrfTokens
from shared.accounts.signing_keys import FixedSigningKeys

KEYS = {"new": b"n" * 32, "old": b"o" * 32}


def tokens(*names: str) -> CsrfTokens:
    return CsrfTokens(FixedSigningKeys({name: KEYS[name] for name in names}))


def test_a_token_belongs_to_its_session_alone() -> None:
    token = tokens("new").issue("session")
    assert tokens("new").is_valid("session", token)
    for other in ("", "Session", "session ", "sessio", f"session\n{token}"):
        assert not tokens("new").is_valid(other, token)


def test_all_tokens_of_a_session_differ() -> None:
    issued = {tokens("new").issue("session") for _ in range(100)}
    assert len(issued) == 100
    assert all(tokens("new").is_valid("session", token) for token in issued)


def test_the_keys_can_be_replaced_while_pages_are_open() -> None:
    old, new = tokens("old").issue("session"), tokens("new", "old").issue("session")
    assert all(tokens("new", "old").is_valid("session", token) for token in (old, new))
    assert tokens("new").is_valid("session", new)  # the first key signs
    assert not tokens("new").is_valid("session", old)


def test_without_keys_no_token_is_valid() -> None:
    assert not CsrfTokens(FixedSigningKeys({})).is_valid("session", tokens("new").issue("session"))


@pytest.mark.parametrize("change", [str.upper, lambda token: token[:-1], lambda token: token + "0", lambda token: f"{token}\n", lambda token: f" {token}", lambda token: token.replace(".", ""), lambda token: token[33:], lambda token: token[::-1]])
def test_a_changed_token_is_refused(change: Callable[[str], str]) -> None:
    assert not tokens("new").is_valid("session", change(tokens("new").issue("session")))


@given(st.text() | st.from_regex(r"[0-9a-f]{32}\.[0-9a-f]{64}", fullmatch=True))
def test_a_random_text_is_refused(text: str) -> None:
    assert not tokens("new").is_valid("session", text)
