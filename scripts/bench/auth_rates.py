"""Measure the CPU time of checking credentials and of counting requests: alone, in a request, and when they are refused.

CPU times are those of the thread that calls, which Linux counts in nanoseconds. MongoDB, Redis and other threads are not
included.
"""

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import jwt
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, run_wsgi_app

from scripts.bench import page_rates
from scripts.bench.auth_testbed import CountingListener, Testbed
from scripts.bench.extent import Extent
from scripts.bench.report import Row, Target, compare
from scripts.bench.timing import interleave, median
from shared import settings
from shared.accounts import key_format
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import TokenSigner
from shared.errors import Unauthorized
from web.http import rate_limit_headers
from web.http.rate_limits import QuotaPolicy, RateLimiter

_CHEAP: Final = Target(at_most=300)
_RATE_CHECK: Final = Target(at_most=200)
_NO_LIMIT: Final = 1_000_000_000
_PATH: Final = "/me"
_AUDIENCE: Final = "shelfsight:access"
_NO_COMMANDS: Final = Target(at_most=0)
_US: Final = 1e6


def measure_authentication(testbed: Testbed, extent: Extent) -> list[Row]:
    """Compare the authentication by key and by token with a read of the key in each request, and with PyJWT alone."""
    user = testbed.create_user()
    key_id, key = testbed.create_key(user)
    token = testbed.sign_in(user)
    cached = testbed.new_authenticator(testbed.db)

    def uncached(credentials: str) -> None:
        testbed.new_authenticator(testbed.db).authenticate(credentials)

    subjects: dict[str, Callable[[], object]] = {
        "key": lambda: cached.authenticate(key),
        "token": lambda: cached.authenticate(token),
        "uncached key": lambda: uncached(key),
        "uncached token": lambda: uncached(token),
        "find_one": lambda: testbed.db.api_keys.find_one({"_id": key_id}),
        "PyJWT": lambda: jwt.decode(token, testbed.signing_key, ["HS256"], audience=_AUDIENCE),
    }
    us = _measure(subjects, extent, calls=extent.choose(full=200, quick=100, smoke=2))
    return [
        Row("by key, cached: CPU", us["key"], "us", target=_CHEAP),
        Row("by token, cached: CPU", us["token"], "us", target=_CHEAP),
        compare("by key, cached: CPU, of a find_one by id in each request", us["key"], "us", us["find_one"]),
        compare("by token, cached: CPU, of a find_one by id in each request", us["token"], "us", us["find_one"]),
        compare("by token, cached: CPU, of PyJWT alone with the same token", us["token"], "us", us["PyJWT"]),
        compare("by key, not cached: CPU, of a find_one by id", us["uncached key"], "us", us["find_one"]),
        compare("by token, not cached: CPU, of a find_one by id", us["uncached token"], "us", us["find_one"]),
    ]


def measure_gate(testbed: Testbed, extent: Extent) -> list[Row]:
    """Measure what the gate adds to a request of the real application, called through WSGI in this process.

    Requests are not counted; ``measure_rates`` measures what that adds.
    """
    user = testbed.create_user()
    credentials = {"key": testbed.create_key(user)[1], "token": testbed.sign_in(user)}
    apps = {is_on: page_rates.create_client(testbed.settings(is_on=is_on)).application for is_on in (False, True)}
    headers = {name: Headers({"Authorization": f"Bearer {text}"}) for name, text in credentials.items()}
    requests = {
        "open": _Request(apps[False], Headers()),
        "key": _Request(apps[True], headers["key"]),
        "token": _Request(apps[True], headers["token"]),
    }
    us = _measure(requests, extent, calls=extent.choose(full=100, quick=50, smoke=2))
    for app in apps.values():
        app.extensions["shelfsight"].close()
    return [
        compare(f"GET {_PATH} with a key: CPU, of one without credentials while access is open", us["key"], "us", us["open"]),
        compare(f"GET {_PATH} with a token: CPU, of one without credentials while access is open", us["token"], "us", us["open"]),
        Row("what a key adds to a request: CPU", us["key"] - us["open"], "us", target=_CHEAP),
        Row("what a token adds to a request: CPU", us["token"] - us["open"], "us", target=_CHEAP),
    ]


def measure_rates(testbed: Testbed, extent: Extent) -> list[Row]:
    """Measure what it costs to count a request: alone with its headers, in a request of the real application, and without Redis."""
    key = testbed.create_key(testbed.create_user())[1]
    policy = QuotaPolicy("bench", _NO_LIMIT, 60)
    limiter, alone = (RateLimiter(redis) for redis in (testbed.servers.settings.redis, settings.Redis(url="redis://127.0.0.1:1/0")))

    def count(by: RateLimiter) -> None:
        usages = [by.require(policy, "client", reason="Too many")]
        rate_limit_headers.policy_field(usages)
        rate_limit_headers.limit_field(usages)

    if not limiter.hit(policy, "client").is_shared:
        raise RuntimeError("Redis does not count.")
    apps = {per_minute: page_rates.create_client(testbed.settings(is_on=True, per_minute=per_minute)).application for per_minute in (0, _NO_LIMIT)}
    headers = Headers({"Authorization": f"Bearer {key}"})
    subjects: dict[str, Callable[[], object]] = {
        "Redis": partial(count, limiter),
        "local": partial(count, alone),
        "not counted": _Request(apps[0], headers),
        "counted": _Request(apps[_NO_LIMIT], headers),
    }
    us = _measure(subjects, extent, calls=extent.choose(full=200, quick=100, smoke=2))
    for app in apps.values():
        app.extensions["shelfsight"].close()
    for opened in (limiter, alone):
        opened.close()
    return [
        Row("counting a request in Redis, with the headers: CPU", us["Redis"], "us", target=_RATE_CHECK),
        Row("what counting adds to a request: CPU", us["counted"] - us["not counted"], "us", target=_RATE_CHECK),
        compare(f"GET {_PATH} that is counted: CPU, of one that is not", us["counted"], "us", us["not counted"]),
        Row("counting a request locally, while Redis is away: CPU", us["local"], "us"),
    ]


def measure_reads(testbed: Testbed, extent: Extent) -> list[Row]:
    """Count the commands that MongoDB gets for cached and for invalid credentials, and time the refusal of the latter."""
    count = extent.choose(full=1000, quick=1000, smoke=20)
    listener = CountingListener()
    db = testbed.connect_with(listener)
    authenticator = testbed.new_authenticator(db)
    user = testbed.create_user()
    key, token = testbed.create_key(user)[1], testbed.sign_in(user)
    rows = []
    for name, credentials in (("key", key), ("token", token)):
        authenticator.authenticate(credentials)
        before = listener.commands
        for _ in range(count):
            authenticator.authenticate(credentials)
        rows.append(Row(f"{count:,} times by {name}, cached: commands to MongoDB", listener.commands - before, "", target=_NO_COMMANDS))

    def refuse(credentials: str) -> None:
        try:
            authenticator.authenticate(credentials)
        except Unauthorized:
            return
        raise RuntimeError("Invalid credentials were accepted.")

    garbage = _garbage(key, token)
    before = listener.commands
    us = _measure({name: partial(refuse, text) for name, text in garbage.items()}, extent, calls=extent.choose(full=200, quick=100, smoke=2))
    rows += [Row(f"refused, {name}: CPU", us[name], "us") for name in garbage]
    rows.append(Row("refused, all of these: commands to MongoDB", listener.commands - before, "", target=_NO_COMMANDS))
    before = listener.commands
    for _ in range(count):
        refuse(key_format.generate().text)
    rows.append(Row("refused, invented keys with the right checksum: commands for each", (listener.commands - before) / count, ""))
    db.client.close()
    return rows


def _garbage(key: str, token: str) -> dict[str, str]:
    """Return credentials that must be refused without a read, by their names."""
    header, claims, _ = token.split(".")
    none = urlsafe_b64encode(b'{"alg":"none","typ":"access+jwt","kid":"bench"}').decode().rstrip("=")
    stranger = TokenSigner(FixedSigningKeys({"bench": secrets.token_bytes(32)})).issue_access("someone", "session")[0]
    return {
        "a key with a wrong character": key[:-9] + ("a" if key[-9] != "a" else "b") + key[-8:],
        "a truncated key": key[:-1],
        "a token of another signing key": stranger,
        "a token with a wrong signature": f"{header}.{claims}.{'A' * 43}",
        "a token without a signature (none)": f"{none}.{claims}.",
        "a text of 1 MB": "x" * 1_000_000,
    }


class _Request:
    """A request to an application, which can be repeated."""

    def __init__(self, app: Flask, headers: Headers) -> None:
        self._app = app
        self._environ: dict[str, Any] = dict(EnvironBuilder(_PATH, headers=headers).get_environ())

    def __call__(self) -> None:
        status = run_wsgi_app(self._app, dict(self._environ), buffered=True)[1]
        if not status.startswith("200"):
            raise RuntimeError(f"Unexpected response: {status}")


def _measure(subjects: Mapping[str, Callable[[], object]], extent: Extent, *, calls: int) -> dict[str, float]:
    """Return the median CPU time of a call of each subject in microseconds.

    A sample is the mean of ``calls`` calls. Before them, there is one that is not measured, because what it reads can have
    expired in the cache since the last sample.
    """
    rounds = extent.choose(full=41, quick=11, smoke=1)

    def sample(call: Callable[[], object]) -> float:
        call()
        began = time.thread_time()
        for _ in range(calls):
            call()
        return (time.thread_time() - began) / calls * _US

    samples = interleave({name: partial(sample, call) for name, call in subjects.items()}, rounds)
    return {name: median(found) for name, found in samples.items()}

