"""Measure how long revoked rights are still accepted by another web process."""

import threading
import time
from collections.abc import Callable
from typing import Final

from scripts.bench.auth_testbed import Testbed
from scripts.bench.report import Row, Target
from shared.accounts import api_keys, sessions, users
from shared.accounts.authenticator import Authenticator
from shared.accounts.users import Change
from shared.errors import Unauthorized

_TARGET: Final = Target(at_most=5)
_POLL_S: Final = 0.01
_GIVE_UP_S: Final = 60.0


def measure(testbed: Testbed, *, rounds: int) -> list[Row]:
    """Revoke a key, a session and rights just after another process has read them, and time when it notices.

    The two authenticators have a connection and a cache of their own, as two web processes have. The rows have the
    longest times.
    """
    first, second = testbed.new_authenticator(), testbed.new_authenticator()
    names = ("a deleted key", "the token of an ended session", "the token of a disabled user", "rights after a demotion")
    longest = dict.fromkeys(names, 0.0)
    for _ in range(rounds):
        revocations = _prepare(testbed, first, second)
        threads = []
        for name, (revoke, is_accepted) in zip(names, revocations, strict=True):

            def run(name: str = name, revoke: Callable[[], object] = revoke, is_accepted: Callable[[], bool] = is_accepted) -> None:
                longest[name] = max(longest[name], _time(revoke, is_accepted))

            threads.append(threading.Thread(target=run))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [Row(f"{name}: accepted elsewhere for, longest of {rounds}", seconds, "s", target=_TARGET) for name, seconds in longest.items()]


def _prepare(testbed: Testbed, first: Authenticator, second: Authenticator) -> list[tuple[Callable[[], object], Callable[[], bool]]]:
    """Return how each kind of rights is revoked, and whether they are still accepted by ``second``."""
    user, other, demoted = (testbed.create_user() for _ in range(3))
    key_id, key = testbed.create_key(user)
    token, other_token, demoted_token = (testbed.sign_in(found) for found in (user, other, demoted))
    session_id = testbed.signer.read_access(token).session_id
    for credentials in (key, token, other_token, demoted_token):
        first.authenticate(credentials)

    def accepts(credentials: str) -> bool:
        try:
            return second.authenticate(credentials).may("images:upload")
        except Unauthorized:
            return False

    admin = testbed.create_user("admin").rights
    return [
        (lambda: api_keys.delete(testbed.db, key_id, {}), lambda: accepts(key)),
        (lambda: sessions.end(testbed.db, session_id, user.id), lambda: accepts(token)),
        (lambda: users.change(testbed.db, other.username, Change(disabled=True), admin), lambda: accepts(other_token)),
        (lambda: users.change(testbed.db, demoted.username, Change(role="viewer"), admin), lambda: accepts(demoted_token)),
    ]


def _time(revoke: Callable[[], object], is_accepted: Callable[[], bool]) -> float:
    """Return the seconds from the end of a revocation until it is noticed by who has read the rights just before."""
    if not is_accepted():
        raise RuntimeError("Valid credentials were refused.")
    revoke()
    began = time.perf_counter()
    while is_accepted():
        if time.perf_counter() - began > _GIVE_UP_S:
            raise RuntimeError(f"Revoked credentials were still accepted after {_GIVE_UP_S:.0f} s.")
        time.sleep(_POLL_S)  # poll, because nothing tells when the cache expires
    return time.perf_counter() - began
