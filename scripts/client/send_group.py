"""Sending one group until it is answered: multipart, with its key, patient with a service that is busy or away."""

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import httpx

from scripts.client.groups import Picture, UsageError

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_LONGEST_ASKED_S: Final = 300.0
_ASK_S: Final = 20.0
_AGAIN: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507})
_ABOUT_PICTURES: Final = frozenset({400, 410, 413, 415, 422})
_PORTS: Final = range(1, 65536)
SETTLED_S: Final = 65.0
"""After this long a key that belongs to another request belongs to one that was accepted: in flight it lives 60 s."""
TIMEOUT: Final = httpx.Timeout(120.0, connect=10.0)


class GaveUp(Exception):
    """The service did not take something within the time allowed, or refuses to talk; the text says why."""


class Sender:
    """Talks to the service; may be used from several threads."""

    def __init__(self, url: str, token: str | None, retry_for_s: float, stop: threading.Event, settled_s: float = SETTLED_S) -> None:
        """Open a client; ``stop`` ends all waiting between tries.

        :raises UsageError: the address or the token cannot be used.
        """
        if token and not (token.isascii() and token.isprintable()):
            raise UsageError("--token has characters that no token has.")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=_checked(url), timeout=TIMEOUT, headers=headers, trust_env=False)
        self._url, self._retry_for, self._stop, self._settled = url, retry_for_s, stop, settled_s

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def limits(self) -> dict[str, int]:
        """Ask what an upload may be.

        :raises GaveUp: nobody answers there, or not as this service does.
        """
        answer = self._patiently(lambda: self._client.get("/limits"), f"{self._url} does not answer", self._retry_for)
        body = _body(answer)
        try:
            return {name: int(body[name]) for name in ("max_images", "max_body_bytes", "max_image_bytes")}
        except (KeyError, TypeError, ValueError):
            raise GaveUp(f"{self._url} does not answer as Shelfsight does: {_problem(answer, body)}") from None

    def send(self, key: str, pictures: list[tuple[Picture, bytes]]) -> dict[str, Any]:
        """Send pictures with their bytes; give the body of the 202, or the problem that refuses them for good, and ``http``.

        Multipart, because base64 makes a third more bytes and costs both sides the coding.

        :raises GaveUp: not taken in time, or refused for what is not about these pictures.
        """
        metadata = json.dumps([picture.meta for picture, _ in pictures])
        files: list[tuple[str, Any]] = [("metadata", (None, metadata, "application/json"))]
        files += [("file", (picture.said["filename"], data, "application/octet-stream")) for picture, data in pictures]
        headers = {"Idempotency-Key": key, "Prefer": "handling=lenient"}

        def post() -> httpx.Response:
            return self._client.post("/upload_image_batch", files=files, headers=headers)

        mismatch_until = 0.0
        while True:
            answer = self._patiently(post, "A batch was not taken", self._retry_for)
            body = _body(answer)
            if body.get("code") != "idempotency_mismatch":
                break
            mismatch_until = mismatch_until or time.monotonic() + self._settled
            if time.monotonic() > mismatch_until:
                break
            if self._stop.wait(min(2.0, self._settled)):
                raise GaveUp("A batch was not taken: an earlier try of it is still being answered")
        taken = answer.status_code == httpx.codes.ACCEPTED and {"batch_id", "total", "images"} <= body.keys()
        if taken or (answer.status_code in _ABOUT_PICTURES and body):
            return body | {"http": answer.status_code}
        raise GaveUp(f"The service refuses: {_problem(answer, body)}")

    def batch(self, batch_id: str, until: float) -> dict[str, Any]:
        """Give a batch as soon as it is finished, or as it is after 20 s; at latest at ``until`` (monotonic seconds).

        :returns: the batch, or the problem document where it is no longer there.
        :raises GaveUp: nobody answers in time, or not as this service does.
        """
        left = max(0.0, until - time.monotonic())

        def get() -> httpx.Response:
            return self._client.get(f"/image_batches/{batch_id}", params={"wait": int(min(left, _ASK_S))}, timeout=_ASK_S + 10)

        answer = self._patiently(get, "The service does not answer", min(left, self._retry_for))
        body = _body(answer)
        if "images" in body or answer.status_code == httpx.codes.NOT_FOUND:
            return body
        raise GaveUp(f"The service refuses: {_problem(answer, body)}")

    def _patiently(self, call: Callable[[], httpx.Response], trouble: str, patience_s: float) -> httpx.Response:
        until = time.monotonic() + patience_s
        wait = _FIRST_WAIT_S
        while True:
            asked = 0.0
            try:
                answer = call()
                if answer.status_code not in _AGAIN:
                    return answer
                reason = _problem(answer, _body(answer))
                asked = _retry_after(answer)
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            pause = max(asked, random.uniform(wait / 2, wait))
            if time.monotonic() + pause > until or self._stop.wait(pause):
                raise GaveUp(f"{trouble} ({reason})")
            wait = min(_LONGEST_WAIT_S, wait * 2)


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
        usable = parsed.scheme in {"http", "https"} and parsed.host and (parsed.port is None or parsed.port in _PORTS)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise UsageError(f"--url {url} is no address of a service; one looks like http://127.0.0.1:5000")
    return url.rstrip("/")


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _problem(answer: httpx.Response, body: dict[str, Any]) -> str:
    detail = f"{body['code']}: {body['detail']}" if {"code", "detail"} <= body.keys() else answer.reason_phrase
    return f"HTTP {answer.status_code} {detail}".strip()


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(_LONGEST_ASKED_S, float(text)) if text.isdecimal() else 0.0
