"""Limit the attempts to sign in and to sign up.

The counters are in Redis and shared by all web processes. While Redis does not respond, each process counts for itself, so
that people can still sign in, and nobody can try passwords without a limit.
"""

import hashlib
import math
import time
from typing import Final

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from shared.errors import Busy
from shared.fetch.addresses import client_key
from shared.queue.breaker import Breaker
from shared.queue.redis_client import connect_redis
from shared.settings import Redis

_TIMEOUT_S: Final = 0.5
_WINDOW_S: Final = 15 * 60
_PER_NAME_AND_CLIENT: Final = RateLimitItemPerSecond(10, _WINDOW_S)
_PER_CLIENT: Final = RateLimitItemPerSecond(300, _WINDOW_S)
"""Attempts of all kinds, because many people can share an address."""
_PER_NAME: Final = RateLimitItemPerSecond(100, _WINDOW_S)
"""NIST SP 800-63B-4, 3.2.2: at most 100 failed attempts for one account. Others can block the sign-in of an account for a
quarter of an hour by so many attempts, but not its sessions and keys."""
_SIGN_UPS: Final = RateLimitItemPerSecond(60, 60 * 60)

_Count = tuple[RateLimitItem, tuple[str, ...]]


class SignInThrottle:
    """Limits attempts by name and by client. Thread-safe. The connection to Redis is opened when it is first used."""

    def __init__(self, redis: Redis) -> None:
        self._redis = connect_redis(redis, timeout_s=_TIMEOUT_S)
        storage = RedisStorage(redis.url, self._redis.connection_pool, key_prefix="shelfsight:sign_in")
        self._shared = SlidingWindowCounterRateLimiter(storage)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._breaker = Breaker()

    def count_sign_in(self, name: str, client: str) -> None:
        """Count an attempt to sign in. Each attempt counts as a failure until ``forget_sign_in`` is called.

        :param name: the user name or the email address that the client sent.
        :param client: the address of the client.
        :raises Busy: when there were too many failures for this name, from this client, or both.
        """
        for count in _sign_in_counts(name, client):
            self._hit(*count)

    def forget_sign_in(self, name: str, client: str) -> None:
        """Forget the failures for a name, because an attempt has succeeded."""
        for item, names in _sign_in_counts(name, client)[1:]:
            self._local.clear(item, *names)
            if not self._breaker.is_open:
                try:
                    self._shared.clear(item, *names)
                except RedisError:
                    self._breaker.trip()

    def count_sign_up(self, client: str) -> None:
        """Count an attempt to sign up or to use a one-time link.

        :raises Busy: when there were too many attempts from this client.
        """
        self._hit(_SIGN_UPS, ("sign_up", client_key(client)))

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def _hit(self, item: RateLimitItem, names: tuple[str, ...]) -> None:
        if not self._breaker.is_open:
            try:
                _count(self._shared, item, names)
            except RedisError:
                self._breaker.trip()
            else:
                return
        _count(self._local, item, names)


def _sign_in_counts(name: str, client: str) -> tuple[_Count, ...]:
    # The name is not stored, because people enter passwords in the wrong field.
    name, client = hashlib.sha256(name.lower().encode("utf-8", "replace")).hexdigest(), client_key(client)
    return (
        (_PER_CLIENT, ("client", client)),  # the first, so that a client can create only so many counters of names
        (_PER_NAME_AND_CLIENT, ("name_and_client", name, client)),
        (_PER_NAME, ("name", name)),
    )


def _count(limiter: SlidingWindowCounterRateLimiter, item: RateLimitItem, names: tuple[str, ...]) -> None:
    if not limiter.hit(item, *names):
        reset_time = limiter.get_window_stats(item, *names).reset_time
        raise Busy("Too many attempts; retry later.", retry_after=max(1, math.ceil(reset_time - time.time())))
