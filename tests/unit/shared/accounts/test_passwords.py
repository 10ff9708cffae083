"""Passwords: which ones are acceptable, and their hashes."""

import logging
import random
import resource
import secrets
import string
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import argon2
import pytest
from argon2.profiles import CHEAPEST
from hypothesis import given
from hypothesis import strategies as st

from shared.accounts.common_passwords import COMMON_PASSWORDS
from shared.accounts.passwords import PasswordHasher, find_fault
from shared.errors import Busy, Environment

GOOD = "the shelf behind the till"
ANY_TEXT = st.text(st.characters())
MEDIUM = argon2.Parameters(argon2.Type.ID, 19, salt_len=16, hash_len=32, time_cost=2, memory_cost=16 * 1024, parallelism=1)
CHEAP_HASHER = PasswordHasher(4, 60, CHEAPEST)


@pytest.mark.parametrize(
    "password",
    [
        GOOD, "fifteen letters", "   leading and trailing   ", "Полка за кассой пуста", "棚の後ろにある古い箱は誰のものか", "🍎🍐🍊🍋🍌🍉🍇🍓🍈🍒🍑🥭🍍🥥🥝",
        "12 eggs, 3 apples", "abcdefgh and more", "manchester united forever", "my password is long", "D'Artagnan & 3 others",
        "".join(chr(ord("一") + 7 * number) for number in range(256)),
    ],
)  # fmt: skip
def test_a_password_of_15_characters_in_any_script_is_acceptable(password: str) -> None:
    assert find_fault(password, "anna", "anna@example.com") is None


def test_random_passwords_are_acceptable() -> None:
    for _ in range(300):
        assert find_fault(secrets.token_urlsafe(12)) is None
        assert find_fault(secrets.token_hex(8)) is None
        assert find_fault("".join(secrets.choice(string.ascii_lowercase) for _ in range(15))) is None


@pytest.mark.parametrize("password", ["", " ", "tooshort", GOOD[:14], "e\u0301a\u0300" * 3 + "some", "🍎" * 3])
def test_a_password_of_fewer_characters_is_refused(password: str) -> None:
    assert find_fault(password) == "The password is too short; use at least 15 characters, for example several words."


def test_a_composed_character_counts_once() -> None:
    fourteen, fifteen = "éàêîöüñçåøœæßë", "éàêîöüñçåøœæßëï"
    assert (find_fault(fourteen) or "").startswith("The password is too short")
    assert find_fault(unicodedata.normalize("NFD", fourteen)) == find_fault(fourteen)
    assert find_fault(fifteen) is find_fault(unicodedata.normalize("NFD", fifteen)) is None


def test_the_longest_password_is_acceptable_in_its_longest_form() -> None:
    characters = [character for character in map(chr, range(0x1F00, 0x1FFF)) if unicodedata.is_normalized("NFC", character)]
    text = "".join(random.Random(1).choices([c for c in characters if len(unicodedata.normalize("NFD", c)) == 4], k=256))
    decomposed = unicodedata.normalize("NFD", text)
    assert len(decomposed) == 4 * 256
    assert find_fault(decomposed) is None
    assert CHEAP_HASHER.verify(CHEAP_HASHER.hash(text), decomposed)


@pytest.mark.parametrize("length", [257, 1024, 1025, 1_000_000])
def test_a_longer_password_is_refused(length: int) -> None:
    password = "".join(random.Random(1).choices(string.ascii_letters, k=length))
    assert find_fault(password) == "The password is too long; use at most 256 characters."
    with pytest.raises(ValueError, match="too long"):
        CHEAP_HASHER.hash(password)
    assert not CHEAP_HASHER.verify(CHEAP_HASHER.hash(GOOD), password)


def test_a_text_that_is_slow_to_normalize_is_refused_at_once() -> None:
    # The normalization of such a text would take hours.
    assert find_fault("a" + "\u0301\u0316" * 500_000, "b" + "\u0301\u0316" * 500_000) is not None
    assert find_fault(GOOD, "b" + "\u0301\u0316" * 500_000) is None


@pytest.mark.parametrize("character", ["\0", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\ud800"], ids=ascii)
def test_a_password_with_a_control_character_or_a_surrogate_is_refused(character: str) -> None:
    for password in (GOOD + character, character + GOOD, GOOD[:5] + character + GOOD[5:], character * 20):
        assert find_fault(password) == "The password contains a control character or an invalid character; use only characters that can be typed."
        with pytest.raises(ValueError, match="control character"):
            CHEAP_HASHER.hash(password)
        assert not CHEAP_HASHER.verify(CHEAP_HASHER.hash(GOOD), password)
        assert not CHEAP_HASHER.verify(None, password)


@pytest.mark.parametrize(
    "password",
    [
        "passwordpassword", "aaaaaaaaaaaaaaa", "               ", "abcabcabcabcabcabc", "PasswordpaSSwordPASSWORD", "Anna1Anna1Anna1Anna1", "abcdefghijklmnabcdefghijklmn",
        "a" * 256, "éàéàéàéàéàéàéàéà", "🍎🍐🍎🍐🍎🍐🍎🍐🍎🍐🍎🍐🍎🍐🍎🍐", "abcabcabcabcabca",
    ],
)  # fmt: skip
def test_a_password_that_repeats_a_short_text_is_refused(password: str) -> None:
    assert (find_fault(password) or "").startswith("The password repeats a shorter text;")


@given(st.text(min_size=1, max_size=14), st.integers(2, 15), st.integers(0, 13))
def test_a_repeated_short_text_is_never_acceptable(unit: str, times: int, tail: int) -> None:
    assert find_fault(unit * times + unit[:tail]) is not None


def test_a_repeated_text_of_15_characters_is_judged_as_that_text() -> None:
    assert find_fault(GOOD + GOOD) is None
    assert find_fault("manchesterunitedManchesterUnited") == find_fault("manchesterunited") is not None


@pytest.mark.parametrize(
    "password",
    [
        "abcdefghijklmno", "ABCDEFGHIJKLMNOP", "zyxwvutsrqponml", "abcdefghijklmnopqrstuvwxyzabc", "123456789012345", "1234567890123456", "0987654321098765", "012345678901234",
        "qwertyuiopasdfghjkl", "lkjhgfdsapoiuytrewq", "QWERTYUIOPasdfgh", "qwertzuiopasdfg", "azertyuiopqsdfghjklm", "йцукенгшщзхъфывапролджэ", "абвгдежзийклмноп",
        "123456789qwerty", "aaaaabbbbbccccc", "111222333444555", "qwertyuiop12345", "!@#$%^&*()qwerty", "abcdefghijklmnop!", "1abcdefghijklmno", "abcdefghijklmnopqrstuvwxyzab",
    ],
)  # fmt: skip
def test_runs_along_the_alphabet_the_digits_or_a_keyboard_row_are_common(password: str) -> None:
    assert (find_fault(password) or "").startswith("The password is one of the first")


def test_each_common_password_is_refused_in_upper_and_lower_case() -> None:
    assert len(COMMON_PASSWORDS) > 1000
    for password in COMMON_PASSWORDS:
        assert (find_fault(password) or "").startswith("The password is one of the first")
        assert (find_fault(password.upper()) or "").startswith("The password is one of the first")


@pytest.mark.parametrize(
    ("password", "names"),
    [
        ("anna.maria.schmidt", ["Anna.Maria.Schmidt"]), ("Anna.Schmidt@Example.com", ["anna", "anna.schmidt@example.com"]), ("ANNASCHMIDTSHOPANNASCHMIDTSHOP", ["annaschmidtshop"]),
        ("rene\u0301e.lacroix.shop", ["ren\u00e9e.lacroix.shop"]),
    ],
)  # fmt: skip
def test_the_name_of_the_user_is_refused(password: str, names: list[str]) -> None:
    assert find_fault(password, *names) == "The password is your user name or your email address; choose another one."
    assert find_fault(password + "?", *names) is None
    assert find_fault(password) is None


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_is_refused_with_a_sentence_or_can_be_used(password: str, name: str) -> None:
    fault = find_fault(password, name)
    if fault is None:
        assert CHEAP_HASHER.verify(CHEAP_HASHER.hash(password), password)
    else:
        assert fault.endswith(".")
    assert not CHEAP_HASHER.verify(None, password)


def test_a_hash_is_made_with_the_low_memory_profile_of_rfc_9106() -> None:
    hasher = PasswordHasher(1, 60)
    stored = hasher.hash(GOOD)
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert hasher.verify(stored, GOOD)
    assert not hasher.verify(stored, GOOD + " ")
    assert not hasher.verify(None, GOOD)
    assert not hasher.needs_rehash(stored)


def test_two_hashes_of_a_password_differ() -> None:
    assert CHEAP_HASHER.hash(GOOD) != CHEAP_HASHER.hash(GOOD)


def test_a_password_is_the_same_however_its_characters_are_encoded() -> None:
    composed = "un caf\u00e9 tr\u00e8s \u00e9l\u00e9gant"
    assert CHEAP_HASHER.verify(CHEAP_HASHER.hash(composed), unicodedata.normalize("NFD", composed))
    assert not CHEAP_HASHER.verify(CHEAP_HASHER.hash(composed), composed.upper())


def test_a_hash_with_other_parameters_is_accepted_and_needs_a_new_hash() -> None:
    stored = CHEAP_HASHER.hash(GOOD)
    hasher = PasswordHasher(1, 60, MEDIUM)
    assert hasher.verify(stored, GOOD)
    assert hasher.needs_rehash(stored)
    assert not hasher.needs_rehash(hasher.hash(GOOD))


MALFORMED = [
    "", "$", "secret", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$", "$argon2id$v=19$m=x,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g", "$argon2id$v=19$m=8,t=0,p=0$c2FsdHNhbHQ$aGFzaGhhc2g",
    "$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$\u00e9", "\ud800", "\0", "$argon2id$v=19\0$m=8", "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("stored", MALFORMED, ids=lambda stored: ascii(stored)[:40])
def test_a_malformed_hash_matches_no_password_and_is_logged(stored: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "shelfsight.error")  # other tests raise the level of the root logger
    assert not CHEAP_HASHER.verify(stored, GOOD)
    assert CHEAP_HASHER.needs_rehash(stored)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("shelfsight.error", logging.ERROR)


class CountingArgon2:
    """Computes hashes with another hasher, and counts how many are being computed."""

    def __init__(self, hasher: argon2.PasswordHasher) -> None:
        self._hasher, self._lock, self._running, self.peak, self.total = hasher, threading.Lock(), 0, 0, 0

    def hash(self, text: str) -> str:
        with self._counted():
            return self._hasher.hash(text)

    def verify(self, encoded: bytes, text: str) -> bool:
        with self._counted():
            return self._hasher.verify(encoded, text)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
            self.total += 1
            self.peak = max(self.peak, self._running)
        time.sleep(0.01)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1


def test_fifteen_sign_ins_at_once_do_not_compute_more_hashes_at_once_than_allowed() -> None:
    hasher = PasswordHasher(3, 60, CHEAPEST)
    stored = hasher.hash(GOOD)
    counting = CountingArgon2(hasher._argon2)
    hasher._argon2 = counting  # type: ignore[assignment]
    barrier = threading.Barrier(15)

    def sign_in(number: int) -> Any:
        barrier.wait()
        return hasher.hash(GOOD) if number % 5 == 0 else hasher.verify(None if number % 2 else stored, GOOD)

    with ThreadPoolExecutor(15) as executor:
        results = list(executor.map(sign_in, range(15)))
    assert counting.total == 15
    assert counting.peak == 3
    assert [result for number, result in enumerate(results) if number % 5] == [number % 2 == 0 for number in range(15) if number % 5]


def test_a_call_that_waits_too_long_for_its_turn_is_refused() -> None:
    hasher = PasswordHasher(1, 0.05, CHEAPEST)
    stored = hasher.hash(GOOD)
    with hasher._slot():
        for call in (lambda: hasher.hash(GOOD), lambda: hasher.verify(stored, GOOD), lambda: hasher.verify(None, GOOD)):
            with pytest.raises(Busy) as error:
                call()
            assert (error.value.code, error.value.retry_after) == ("too_many_requests", 1)
    assert hasher.verify(stored, GOOD)


@pytest.mark.usefixtures("_little_memory")
def test_too_little_memory_is_reported_as_such() -> None:
    large = argon2.Parameters(argon2.Type.ID, 19, salt_len=16, hash_len=32, time_cost=1, memory_cost=1024 * 1024, parallelism=1)
    hasher = PasswordHasher(1, 0.05, large)
    calls: list[Callable[[], Any]] = [lambda: hasher.hash(GOOD), lambda: hasher.verify(None, GOOD)]
    for call in calls:
        with pytest.raises(Environment) as error:
            call()
        assert (error.value.code, error.value.status, error.value.retry_after) == ("unavailable", 503, 5)


@pytest.fixture
def _little_memory() -> Iterator[None]:
    """Let this process allocate at most 256 MiB more."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def test_calls_beyond_the_number_that_may_wait_are_refused_at_once() -> None:
    hasher = PasswordHasher(1, 60, CHEAPEST, max_waiting=0)
    with hasher._slot(), pytest.raises(Busy) as raised:
        hasher.hash("twelve tired green kettles")
    assert raised.value.retry_after == 60
    assert hasher.hash("twelve tired green kettles")
