"""Connections to Redis with short timeouts and no retries: no request may wait long for Redis."""

import redis

from shared import settings


def connect_redis(redis_settings: settings.Redis, *, timeout_s: float) -> "redis.Redis":
    """Return a client. Nothing is connected before the first command.

    :param timeout_s: limit for connecting, and for each command.
    """
    return redis.Redis.from_url(redis_settings.url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=None)
