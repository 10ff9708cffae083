"""Limit how many expensive operations one client can start. The counters are in Redis and shared by all web processes.

The algorithm is a *sliding window counter*. It adds the count in the current window to a fraction of the count in the
previous window. This needs two numbers for each client, whereas a moving window needs the time of every request. Unlike a
fixed window, it does not admit twice the limit around the boundary between two windows. All times come from the clock of
Redis.
"""

import math
import time
from typing import Final

from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from shared.errors import Busy, StoreAway
from shared.fetch.addresses import client_key
from shared.queue.breaker import Breaker
from shared.queue.redis_client import connect_redis
from shared.settings import Settings

_TIMEOUT_S: Final = 0.5
"""Timeout for connecting to Redis, and for each Redis command."""


class RateLimits:
    """Enforces the limits ``INSPECT_PER_MINUTE`` and ``INSPECT_DREAMS_PER_MINUTE``.

    Thread-safe. The connection to Redis is opened when it is first used.
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
        """Count one more operation of a client, unless this would exceed the limit.

        :param kind: the operation that the client starts, ``inspection`` or ``dream``. Each kind has its own counter.
        :param client: the address of the client. All addresses in an IPv6 /64 network count as one client, because every
            client with IPv6 can use a whole /64 network.
        :raises Busy: when the limit is reached; ``retry_after`` is the number of seconds until the client can retry. A
            refused call is not counted.
        :raises StoreAway: when Redis does not respond (``redis_unavailable``). The failed call takes about one
            second. For one more second, every call raises the exception immediately, because otherwise all threads
            would wait for Redis.
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
            "Your client address has reached its rate limit; retry later.",
            retry_after=max(1, math.ceil(reset_time - time.time())),
        )

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()


def _redis_unavailable() -> StoreAway:
    return StoreAway(
        "Redis does not respond, so no inspection was started; retry later.", code="redis_unavailable", retry_after=2
    )
