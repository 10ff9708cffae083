"""Connections to Redis with short timeouts and no retries, because no request may wait long for Redis."""

import redis

from shared import settings


def connect_redis(redis_settings: settings.Redis, *, timeout_s: float) -> "redis.Redis":
    """Return a Redis client. It connects when it sends its first command.

    :param timeout_s: timeout in seconds for connecting, and for each command.
    """
    return redis.Redis.from_url(redis_settings.url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=None)
