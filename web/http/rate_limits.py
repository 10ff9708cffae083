"""How often one client may begin something that costs much, counted in Redis for all web processes together.

A *sliding window counter*: this window's count and what is left of the last one's. That is two numbers for each client, where a moving window
keeps every time; unlike a fixed window it does not let twice as much pass around a border; and its clock is Redis' own.
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

_PATIENCE_S: Final = 0.5
"""For connecting, and for each answer."""


class Rates:
    """Counts ``INSPECT_PER_MINUTE`` and ``INSPECT_DREAMS_PER_MINUTE``. Of many threads; nothing is connected before its first use."""

    def __init__(self, settings: Settings, window_s: int = 60) -> None:
        """Keep the limit and where to count."""
        self._redis = connect_redis(settings.redis, timeout_s=_PATIENCE_S)
        storage = RedisStorage(settings.redis.url, self._redis.connection_pool, key_prefix="shelfsight:rates")
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        inspect = settings.inspect
        self._limits = {
            "inspection": RateLimitItemPerSecond(inspect.per_minute, window_s),
            "dream": RateLimitItemPerSecond(inspect.dreams_per_minute, window_s),
        }
        self._breaker = Breaker()

    def take(self, kind: str, client: str) -> None:
        """Count one more.

        :param kind: what is begun, ``inspection`` or ``dream``; each is counted by itself.
        :param client: address of who begins it; of IPv6 a whole /64 is one client, for anybody has that many.
        :raises Busy: it were more than the limit; ``retry_after`` says when it will not be. What is refused does not count.
        :raises StoreAway: ``redis_unavailable``, within about a second; then for a second at once, or all threads would wait.
        """
        if self._breaker.is_open:
            raise _away()
        try:
            if self._limiter.hit(self._limits[kind], kind, party(client)):
                return
            again = self._limiter.get_window_stats(self._limits[kind], kind, party(client)).reset_time
        except RedisError as error:
            self._breaker.trip()
            raise _away() from error
        raise Busy("This is begun too often from your address.", retry_after=max(1, math.ceil(again - time.time())))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def party(client: str) -> str:
    """Name who is one client: an address, or of IPv6 the /64 that it lies in."""
    try:
        return str(client_network(ip_address(client)))
    except ValueError:  # a proxy's word that is no address: together they are one client
        return "unknown"


def _away() -> StoreAway:
    return StoreAway("Redis does not answer; nothing was begun.", code="redis_unavailable", retry_after=2)
