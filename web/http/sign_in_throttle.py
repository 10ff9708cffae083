"""Limit the attempts to sign in and to sign up."""

import hashlib
from typing import Final

from shared.fetch.addresses import client_key
from web.http.rate_limits import QuotaPolicy, RateLimiter

_WINDOW_S: Final = 15 * 60
_PER_NAME_AND_CLIENT: Final = QuotaPolicy("sign-in-name-and-address", 10, _WINDOW_S)
_PER_CLIENT: Final = QuotaPolicy("sign-in-address", 300, _WINDOW_S)
"""Attempts of all kinds, because many people can share an address."""
_PER_ACCOUNT: Final = QuotaPolicy("sign-in-account", 100, _WINDOW_S)
"""NIST SP 800-63B-4, 3.2.2: at most 100 failed attempts for one account. Others can block the sign-in of an account for a
quarter of an hour by so many attempts, but not its sessions and keys."""
_SIGN_UPS: Final = QuotaPolicy("sign-up-address", 60, 60 * 60)
_TOO_MANY: Final = "Too many attempts"

_Count = tuple[QuotaPolicy, tuple[str, ...]]


class SignInThrottle:
    """Limits attempts by name, by account, and by client. Thread-safe."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    def count_sign_in(self, name: str, account: str, client: str) -> None:
        """Count an attempt to sign in. Each attempt counts as a failure until ``forget_sign_in`` is called.

        :param name: the user name or the email address that the client sent. With the client, it is counted by itself. If the
            user name and the email address of a user were counted together, a client could find out which belong together.
        :param account: the name of the user that ``name`` belongs to, or ``name`` if it belongs to none.
        :param client: the address of the client.
        :raises RateExceeded: when there were too many failures for this name from this client, for this account, or from this
            client.
        """
        for policy, subject in _sign_in_counts(name, account, client):
            self._limiter.require(policy, *subject, reason=_TOO_MANY)

    def forget_sign_in(self, name: str, account: str, client: str) -> None:
        """Forget the failures for a name and its account, because an attempt has succeeded."""
        for policy, subject in _sign_in_counts(name, account, client)[1:]:
            self._limiter.forget(policy, *subject)

    def count_sign_up(self, client: str) -> None:
        """Count an attempt to sign up or to use a one-time link.

        :raises RateExceeded: when there were too many attempts from this client.
        """
        self._limiter.require(_SIGN_UPS, client_key(client), reason=_TOO_MANY)


def _sign_in_counts(name: str, account: str, client: str) -> tuple[_Count, ...]:
    client = client_key(client)
    return (
        (_PER_CLIENT, (client,)),  # the first, so that a client can create only so many counters of names
        (_PER_NAME_AND_CLIENT, (_digest(name), client)),
        (_PER_ACCOUNT, (_digest(account),)),
    )


def _digest(name: str) -> str:
    # The name is not stored, because people enter passwords in the wrong field.
    return hashlib.sha256(name.lower().encode("utf-8", "replace")).hexdigest()
