"""Rules for passwords, and their hashes.

The rules are those of NIST SP 800-63B-4 for a password that is the only factor: at least 15 characters, none of the
common passwords, and nothing about which kinds of characters it contains.

A password is normalized to NFC before it is checked or hashed, as SP 800-63B-4 and RFC 8265 recommend: keyboards and
operating systems encode the same letter in different ways, for example ``é`` as one code point or as two. NFC does not
merge characters that look different. A password with a control character or with half of a surrogate pair is refused:
the first cannot be typed into most sign-in forms, and the second has no UTF-8 form that could be hashed.
"""

import logging
import math
import operator
import re
import secrets
import threading
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Final

import argon2
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import error_to_str
from argon2.profiles import RFC_9106_LOW_MEMORY

from shared.accounts.common_passwords import COMMON_PASSWORDS
from shared.errors import Busy, Environment

MIN_LENGTH: Final = 15
"""The least number of code points of a normalized password."""
MAX_LENGTH: Final = 256
"""The greatest number of code points of a normalized password. It bounds the work of the checks and of the hash."""
_MAX_DECOMPOSED: Final = 4 * MAX_LENGTH
"""NFC composes at most four code points to one. The time of a normalization can grow with the square of the length, so a
longer text is refused before it is normalized."""
_UNUSABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters (C0, DEL, C1), and surrogates."""

_TOO_SHORT: Final = f"The password is too short; use at least {MIN_LENGTH} characters, for example several words."
_TOO_LONG: Final = f"The password is too long; use at most {MAX_LENGTH} characters."
_NOT_TEXT: Final = "The password contains a control character or an invalid character; use only characters that can be typed."
_REPEATED: Final = f"The password repeats a shorter text; use at least {MIN_LENGTH} characters without repetition, for example several words."
_COMMON: Final = "The password is one of the first that an attacker would try; choose another one, for example several words."
_NAME: Final = "The password is your user name or your email address; choose another one."

_KEYBOARD_ROWS: Final = (
    "1234567890-=", "!@#$%^&*()_+", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./",
    "qwertzuiopü", "asdfghjklöä", "yxcvbnm", "azertyuiop", "qsdfghjklm", "wxcvbn",
    "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю",
)  # fmt: skip
_MIN_RUN: Final = 3
_MAX_OUTSIDE_RUNS: Final = 2

_RESOURCE_ERRORS: Final = frozenset(error_to_str(code) for code in (-22, -33))
"""What Argon2 says when it can get no memory (ARGON2_MEMORY_ALLOCATION_ERROR) or no thread (ARGON2_THREAD_FAIL)."""

_log = logging.getLogger("shelfsight.error")


def find_fault(password: str, *names: str) -> str | None:
    """Return why a password is not acceptable, as a sentence for the user, or None if it is acceptable.

    Upper and lower case are not distinguished. A password that repeats a shorter text counts as that text. A password
    counts as common if it is in ``COMMON_PASSWORDS``, or if all of its characters but two belong to runs: three or more
    characters that follow each other in the alphabet, among the digits or on a keyboard row, forwards or backwards, or
    that are all the same.

    :param names: the user name and the email address of the user. None of them is acceptable as the password.
    """
    try:
        text = _normalize(password)
    except ValueError as fault:
        return str(fault)
    if len(text) < MIN_LENGTH:
        return _TOO_SHORT
    unit = _repeated_unit(text)
    if len(unit) < MIN_LENGTH:
        return _REPEATED
    folded = {text.casefold(), unit.casefold()}
    if not folded.isdisjoint(_fold_names(names)):
        return _NAME
    if not folded.isdisjoint(COMMON_PASSWORDS) or _consists_of_runs(unit.casefold()):
        return _COMMON
    return None


class PasswordHasher:
    """Hashes passwords with Argon2id, by default with the low-memory profile of RFC 9106 (64 MiB for each hash).

    Thread-safe. A process has one hasher, because the hasher limits how many hashes are computed at the same time.

    :param max_parallel: the number of hashes that are computed at the same time.
    :param max_wait_s: how long a call waits for its turn.
    :param max_waiting: the number of calls that wait at the same time. Further ones are refused at once.
    """

    def __init__(
        self, max_parallel: int, max_wait_s: float, parameters: argon2.Parameters = RFC_9106_LOW_MEMORY, *, max_waiting: int = 64
    ) -> None:
        self._argon2 = argon2.PasswordHasher.from_parameters(parameters)
        self._unmatched_hash = _make_unmatched_hash(parameters)
        self._slots, self._max_wait_s = threading.Semaphore(max_parallel), max_wait_s
        self._entrances = threading.Semaphore(max_parallel + max_waiting)

    def hash(self, password: str) -> str:
        """Return the hash of a password, in the PHC string format, with its parameters and a random salt.

        :raises ValueError: when the password contains a control character or a surrogate, or is too long. ``find_fault``
            refuses such a password.
        :raises Busy: when too many hashes are being computed (429, with Retry-After).
        :raises Environment: when the process has too little memory.
        """
        text = _normalize(password)
        with self._slot():
            try:
                return self._argon2.hash(text)
            except HashingError as error:
                raise _out_of_resources() from error

    def verify(self, stored: str | None, password: str) -> bool:
        """Return whether ``password`` is the one that ``stored`` is the hash of.

        If ``stored`` is None because the user does not exist, the result is False and takes as long as for a user who does,
        unless that user's hash was made with other parameters: one hash is computed in each case. If ``stored`` is not a
        hash, the result is False too, and an error is logged, because the user cannot sign in until they get a new password.
        If ``find_fault`` refuses ``password`` because of its characters or its length above the limit, no hash is computed,
        whether the user exists or not.

        :raises Busy: when too many hashes are being computed (429, with Retry-After).
        :raises Environment: when the process has too little memory.
        """
        try:
            text = _normalize(password)
        except ValueError:
            return False
        with self._slot():
            if stored is not None:
                try:
                    return self._matches(stored, text)
                except InvalidHashError:
                    _log.error("The stored hash of a password is malformed, so its user cannot sign in; set a new password for them.")
            return self._matches(self._unmatched_hash, text)

    def needs_rehash(self, stored: str) -> bool:
        """Return whether ``stored`` was made with other parameters than this hasher uses, or is not a hash."""
        try:
            return self._argon2.check_needs_rehash(stored)
        except InvalidHashError:
            return True

    def _matches(self, encoded: str, text: str) -> bool:
        """Return whether a hash in the PHC string format is that of a normalized password.

        :raises InvalidHashError: when ``encoded`` is not such a hash. No hash was computed then.
        """
        try:
            return self._argon2.verify(encoded.encode("ascii", "replace"), text)
        except VerifyMismatchError:
            return False
        except VerificationError as error:
            if str(error) in _RESOURCE_ERRORS:
                raise _out_of_resources() from error
            raise InvalidHashError from error

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Wait until a hash may be computed."""
        if not self._entrances.acquire(blocking=False):
            raise self._busy()
        try:
            if not self._slots.acquire(timeout=self._max_wait_s):
                raise self._busy()
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._entrances.release()

    def _busy(self) -> Busy:
        return Busy("Too many passwords are being checked; retry later.", retry_after=max(1, math.ceil(self._max_wait_s)))


def _normalize(password: str) -> str:
    """Return the text that is checked and hashed for a password.

    :raises ValueError: when it contains a control character or a surrogate, or is too long. The message is a sentence for
        the user.
    """
    if len(password) > _MAX_DECOMPOSED:
        raise ValueError(_TOO_LONG)
    if _UNUSABLE.search(password):
        raise ValueError(_NOT_TEXT)
    text = unicodedata.normalize("NFC", password)
    if len(text) > MAX_LENGTH:
        raise ValueError(_TOO_LONG)
    return text


def _fold_names(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        try:
            yield _normalize(name).casefold()
        except ValueError:
            continue  # no password can be equal to it


def _repeated_unit(text: str) -> str:
    """Return the shortest text that begins ``text`` and, repeated at least twice, makes it up; else ``text``.

    The last repetition may be incomplete: ``abcabca`` repeats ``abc``.
    """
    folded = [character.casefold() for character in text]
    for length in range(1, len(text) // 2 + 1):
        if folded[length:] == folded[:-length]:
            return text[:length]
    return text


def _is_next_key(pairs: frozenset[tuple[str, str]], first: str, second: str) -> bool:
    return (first, second) in pairs


_ORDERS: Final[tuple[Callable[[str, str], bool], ...]] = (
    operator.eq,
    lambda first, second: ord(second) - ord(first) == 1,
    lambda first, second: ord(first) - ord(second) == 1,
    *(partial(_is_next_key, frozenset(pairwise(row))) for row in _KEYBOARD_ROWS),
    *(partial(_is_next_key, frozenset(pairwise(reversed(row)))) for row in _KEYBOARD_ROWS),
)
"""The orders of a run. Each function returns whether the second character follows the first. Code points have the order of
the alphabet in most scripts."""


def _consists_of_runs(text: str) -> bool:
    position = outside = 0
    while position < len(text):
        length = max(_run_length(text, position, is_next) for is_next in _ORDERS)
        if length < _MIN_RUN:
            length = 1
            outside += 1
        position += length
    return outside <= _MAX_OUTSIDE_RUNS


def _run_length(text: str, start: int, is_next: Callable[[str, str], bool]) -> int:
    end = start + 1
    while end < len(text) and is_next(text[end - 1], text[end]):
        end += 1
    return end - start


def _make_unmatched_hash(parameters: argon2.Parameters) -> str:
    """Return a text that takes as long to verify as a hash with these parameters, and that matches no password."""
    salt, digest = (
        b64encode(secrets.token_bytes(length)).rstrip(b"=").decode() for length in (parameters.salt_len, parameters.hash_len)
    )
    costs = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    return f"$argon2{parameters.type.name.lower()}$v={parameters.version}${costs}${salt}${digest}"


def _out_of_resources() -> Environment:
    return Environment("Passwords cannot be checked, because the service has too little memory; retry later.", retry_after=5)
