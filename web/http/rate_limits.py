"""How often one client may start something expensive, counted in Redis for all web processes together.

A *sliding window counter*: the count of this window, plus the part of the previous one's that still counts. That is two
numbers per client, where a moving window keeps every time; unlike a fixed window it does not admit twice the limit
around a border; and it uses Redis' own clock.
"""

import math
import time
from ipaddress import ip_address
from typing import Final

from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from shared.errors import Busy, StoreAway
from shared.fetch.addresses import client_network
from shared.queue.breaker import Breaker
from shared.queue.redis_client import connect_redis
from shared.settings import Settings

_TIMEOUT_S: Final = 0.5
"""For connecting, and for each command."""


class RateLimits:
    """Counts ``INSPECT_PER_MINUTE`` and ``INSPECT_DREAMS_PER_MINUTE``.

    Thread-safe. No connection is opened before its first use.
    """

    def __init__(self, settings: Settings, window_s: int = 60) -> None:
        self._redis = connect_redis(settings.redis, timeout_s=_TIMEOUT_S)
        storage = RedisStorage(settings.redis.url, self._redis.connection_pool, key_prefix="shelfsight:rates")
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        inspect = settings.inspect
        self._limits = {
            "inspection": RateLimitItemPerSecond(inspect.per_minute, window_s),
            "dream": RateLimitItemPerSecond(inspect.dreams_per_minute, window_s),
        }
        self._breaker = Breaker()

    def hit(self, kind: str, client: str) -> None:
        """Count one more, unless it would exceed the limit.

        :param kind: what the client starts, ``inspection`` or ``dream``; each is counted separately.
        :param client: the client's address; all addresses of an IPv6 /64 are one client, since anybody has that many.
        :raises Busy: the limit is reached; ``retry_after`` says for how long. A refused call is not counted.
        :raises StoreAway: ``redis_unavailable``, within about a second; during the next second at once, or all threads
            would wait.
        """
        if self._breaker.is_open:
            raise _redis_unavailable()
        try:
            if self._limiter.hit(self._limits[kind], kind, client_key(client)):
                return
            reset_time = self._limiter.get_window_stats(self._limits[kind], kind, client_key(client)).reset_time
        except RedisError as error:
            self._breaker.trip()
            raise _redis_unavailable() from error
        raise Busy(
            "Your address has reached its rate limit; retry later.",
            retry_after=max(1, math.ceil(reset_time - time.time())),
        )

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def client_key(client: str) -> str:
    """Return what identifies a client: its address, or the /64 network of an IPv6 address."""
    try:
        return str(client_network(ip_address(client)))
    except ValueError:  # a proxy forwarded something that is not an address: all of those are one client
        return "unknown"


def _redis_unavailable() -> StoreAway:
    return StoreAway(
        "Redis does not respond; nothing was started. Retry later.", code="redis_unavailable", retry_after=2
    )
