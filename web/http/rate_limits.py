"""Count requests against quotas. The counters are in Redis and shared by all web processes.

While Redis does not respond, each process counts for itself, so that no request fails and floods are still limited: to as
many times the quota as there are processes. It keeps a limited number of counters of each policy, so who fills those of one
policy, for example with the addresses of many IPv6 networks, removes none of another, such as failed attempts to sign in.

The algorithm is a *sliding window counter*. It adds the count in the current window to a fraction of the count in the
previous window. This needs two numbers for each subject, whereas a moving window needs the time of every request. Unlike a
fixed window, it does not admit twice the quota around the boundary between two windows. A request that is refused is not
counted.

A request usually costs one call of Redis, which increments the current count and returns it. The library's own sliding
window counter needs two calls, one to count and one to read what remains, and twice the processor time. The previous count
changes no more, so it is read once in ``_REREAD_S`` seconds. The windows begin at multiples of their length, by the clock of
the process.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from limits.storage import RedisStorage
from redis.exceptions import RedisError

from shared.errors import Busy
from shared.queue.breaker import Breaker
from shared.queue.redis_client import connect_redis
from shared.settings import Redis
from web.http.local_counts import LocalCounts

_log = logging.getLogger("shelfsight.error")
_TIMEOUT_S: Final = 0.25
"""Timeout for connecting to Redis, and for each Redis command. It is short, because there is another way to count."""
_CLOCK_RESOLUTION_S: Final = 0.001
_REREAD_S: Final = 5
_MAX_CACHED_COUNTS: Final = 4096
_MAX_LOCAL_COUNTERS: Final = 5000
"""For each policy: so many counters, those that were used last, a process has while Redis does not respond."""


@dataclass(frozen=True, slots=True)
class QuotaPolicy:
    """How many requests a subject may make in a window of time. ``name`` is printable ASCII without quotation marks and backslashes."""

    name: str
    quota: int
    window_s: int


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a quota a subject has used, after a request was counted or refused.

    ``remaining`` is the number of further requests that would be admitted now. ``reset_s`` is the number of seconds, at least
    1, until the current window ends or, if the request was refused, until a request is admitted again. ``is_shared`` says
    whether the counter is that of all processes.
    """

    policy: QuotaPolicy
    is_admitted: bool
    remaining: int
    reset_s: int
    is_shared: bool


class RateExceeded(Busy):
    """The request would exceed a quota."""

    def __init__(self, reason: str, usage: Usage) -> None:
        """Create the error.

        :param reason: a sentence without its full stop. The error adds when to retry.
        """
        super().__init__(f"{reason}; retry in {_duration(usage.reset_s)}.", retry_after=usage.reset_s)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """The counts in the previous and in the current window, of which ``left_s`` seconds are left."""

    previous: int
    current: int
    left_s: float

    def used(self, policy: QuotaPolicy) -> int:
        """Return how much of the quota is used. The weight of the previous count decreases until the current window ends."""
        return self.current + math.floor(self.previous * self.left_s / policy.window_s)

    def wait_s(self, policy: QuotaPolicy) -> float:
        """Return the number of seconds until a request is admitted. It is meant for a subject that has used up its quota."""
        if not self.previous or self.current >= policy.quota:
            return self.left_s + _CLOCK_RESOLUTION_S
        # A request is admitted when the weighted previous count is less than what the current count leaves.
        left_then_s = (policy.quota - self.current) * policy.window_s / self.previous
        return max(0.0, self.left_s - left_then_s) + _CLOCK_RESOLUTION_S

    def usage(self, policy: QuotaPolicy, *, is_admitted: bool, is_shared: bool) -> Usage:
        """Return the usage after a request was counted or refused."""
        remaining = max(0, policy.quota - self.used(policy)) if is_admitted else 0
        reset_s = self.left_s if is_admitted else self.wait_s(policy)
        return Usage(policy, is_admitted, remaining, max(1, math.ceil(reset_s)), is_shared)


class RateLimiter:
    """Counts requests. Thread-safe. The connection to Redis is opened when it is first used."""

    def __init__(self, redis: Redis) -> None:
        self._redis = connect_redis(redis, timeout_s=_TIMEOUT_S)
        self._shared = _Counters(RedisStorage(redis.url, self._redis.connection_pool, key_prefix="shelfsight:rates"))
        self._local: dict[str, _Counters] = {}
        self._breaker = Breaker()

    def hit(self, policy: QuotaPolicy, *subject: str) -> Usage:
        """Count a request of a subject, unless this would exceed the quota.

        :param subject: texts that name who makes the request. Each policy has its own counter for a subject.
        """
        key = _key(policy, subject)
        return self._use(policy, lambda counters: counters.hit(policy, key))

    def require(self, policy: QuotaPolicy, *subject: str, reason: str) -> Usage:
        """Count a request of a subject.

        :param reason: why the request is refused: a sentence without its full stop.
        :raises RateExceeded: when this would exceed the quota.
        """
        return _admitted(self.hit(policy, *subject), reason)

    def require_room(self, policy: QuotaPolicy, *subject: str, reason: str) -> None:
        """Do as ``require`` does, but do not count the request."""
        key = _key(policy, subject)
        _admitted(self._use(policy, lambda counters: counters.read(policy, key)), reason)

    def forget(self, policy: QuotaPolicy, *subject: str) -> None:
        """Forget the requests of a subject, in other processes after ``_REREAD_S`` seconds at the latest.

        Those that Redis has counted remain if Redis does not respond.
        """
        key = _key(policy, subject)
        self._local_counters(policy).clear(policy, key)
        if self._breaker.admits():
            try:
                self._shared.clear(policy, key)
            except RedisError as error:
                self._trip(error)
            else:
                self._breaker.reset()

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def _use(self, policy: QuotaPolicy, call: "Callable[[_Counters], tuple[bool, WindowCounts]]") -> Usage:
        if self._breaker.admits():
            try:
                is_admitted, counts = call(self._shared)
            except RedisError as error:
                self._trip(error)
            else:
                self._breaker.reset()
                return counts.usage(policy, is_admitted=is_admitted, is_shared=True)
        is_admitted, counts = call(self._local_counters(policy))
        return counts.usage(policy, is_admitted=is_admitted, is_shared=False)

    def _local_counters(self, policy: QuotaPolicy) -> "_Counters":
        counters = self._local.get(policy.name)
        return counters or self._local.setdefault(policy.name, _Counters(LocalCounts(_MAX_LOCAL_COUNTERS)))

    def _trip(self, error: RedisError) -> None:
        self._breaker.trip()
        _log.warning("cannot count requests in redis: %s", type(error).__name__)


class _Counters:
    """The counters in one storage: one for each window of each key."""

    def __init__(self, storage: RedisStorage | LocalCounts) -> None:
        self._storage = storage
        self._read_previous = lru_cache(maxsize=_MAX_CACHED_COUNTS)(self._read)

    def hit(self, policy: QuotaPolicy, key: str) -> tuple[bool, WindowCounts]:
        """Count a request, unless this would exceed the quota. Return whether it was counted, and the counts."""
        now = time.time()
        window, passed_s = divmod(now, policy.window_s)
        left_s, lifetime_s = policy.window_s - passed_s, 2 * policy.window_s
        current_key = _window_key(key, window)
        current = self._storage.incr(current_key, lifetime_s)
        previous = self._read_previous(_window_key(key, window - 1), now // _REREAD_S)
        counts = WindowCounts(previous, current, left_s)
        if counts.used(policy) <= policy.quota:
            return True, counts
        self._storage.incr(current_key, lifetime_s, amount=-1)
        return False, WindowCounts(previous, current - 1, left_s)

    def read(self, policy: QuotaPolicy, key: str) -> tuple[bool, WindowCounts]:
        """Return whether ``hit`` would count a request, and the counts."""
        now = time.time()
        window, passed_s = divmod(now, policy.window_s)
        previous = self._read_previous(_window_key(key, window - 1), now // _REREAD_S)
        counts = WindowCounts(previous, self._storage.get(_window_key(key, window)), policy.window_s - passed_s)
        return counts.used(policy) < policy.quota, counts

    def clear(self, policy: QuotaPolicy, key: str) -> None:
        """Set both counters of a key to zero."""
        window = time.time() // policy.window_s
        self._storage.clear(_window_key(key, window))
        self._storage.clear(_window_key(key, window - 1))
        self._read_previous.cache_clear()

    def _read(self, key: str, _period: float) -> int:
        return self._storage.get(key)


def _admitted(usage: Usage, reason: str) -> Usage:
    if not usage.is_admitted:
        raise RateExceeded(reason, usage)
    return usage


def _duration(seconds: int) -> str:
    """Return a time in words. Times of more than a minute and a half are in minutes, rounded up."""
    number, unit = (seconds, "second") if seconds <= 90 else (-(-seconds // 60), "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _key(policy: QuotaPolicy, subject: tuple[str, ...]) -> str:
    return "/".join((policy.name, *subject))


def _window_key(key: str, window: float) -> str:
    return f"{key}/{window:.0f}"
