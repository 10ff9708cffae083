"""Send requests to the service, and retry them while the service is busy or unreachable."""

import base64
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

import httpx

from scripts.client.credentials import FILE_OPTION, OPTION, VARIABLE
from scripts.client.groups import Image, UsageError

_FIRST_WAIT_S: Final = 0.5
_MAX_WAIT_S: Final = 30.0
_MAX_RETRY_AFTER_S: Final = 300.0
_POLL_S: Final = 20.0
_RETRIED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507})
_REFUSED_IMAGES: Final = frozenset({400, 410, 413, 415, 422})
"""Status codes with which the service refuses the images of one group; it may still accept other groups."""
_PORTS: Final = range(1, 65536)
_MAX_STORES_NAMED: Final = 10
SETTLED_S: Final = 65.0
"""Seconds for which a request is repeated if the service responds with the error ``idempotency_mismatch``. An earlier
request with the same key may be in progress, and its key then expires after 60 s. If the error is still returned after
this time, the earlier request was accepted."""
TIMEOUT: Final = httpx.Timeout(120.0, connect=10.0)


class GaveUp(Exception):
    """The service did not accept a request within the time limit, or refuses this client.

    The message names the cause.
    """


class Sender:
    """A thread-safe HTTP client for the service."""

    def __init__(self, url: str, api_key: str | None, retry_for_s: float, stop: threading.Event, settled_s: float = SETTLED_S) -> None:
        """Open the client.

        :param api_key: the API key, or an access token; None if the service needs none.
        :param retry_for_s: seconds for which a request is retried.
        :param stop: once this event is set, no request is retried.
        :param settled_s: seconds for which ``send`` repeats an upload that fails with ``idempotency_mismatch``.
        :raises UsageError: when the URL or a proxy in the environment is invalid.
        """
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        base_url = _parse_url(url)
        try:
            # A proxy would look for a service on loopback on its own machine.
            self._client = httpx.Client(base_url=base_url, timeout=TIMEOUT, headers=headers, trust_env=not _is_loopback(base_url))
        except (ValueError, ImportError, httpx.InvalidURL):
            raise UsageError("A proxy in the environment (http_proxy, https_proxy or all_proxy) is invalid, or of a kind that is not supported.") from None
        self._url, self._retry_for_s, self._stop, self._settled_s = url, retry_for_s, stop, settled_s
        self._has_key = api_key is not None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fetch_limits(self) -> dict[str, int]:
        """Request the service's limits for uploads.

        :returns: ``max_images``, ``max_body_bytes`` and ``max_image_bytes``.
        :raises GaveUp: when the service does not respond or refuses the API key, or the response does not come from Shelfsight.
        """
        response = self._request(lambda: self._client.get("/limits"), f"{self._url} does not respond", self._retry_for_s)
        body = _body(response)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise GaveUp(self._refusal(response, body))
        try:
            return {name: int(body[name]) for name in ("max_images", "max_body_bytes", "max_image_bytes")}
        except (KeyError, TypeError, ValueError):
            raise GaveUp(f"{self._url} is not a Shelfsight service; check --url: {_problem(response, body)}") from None

    def send(self, key: str, images: list[tuple[Image, bytes]]) -> dict[str, Any]:
        """Upload images with their bytes.

        The body is multipart. Base64 in JSON would make it a third larger, and would have to be encoded by the client
        and decoded by the service.

        :returns: the body of the 202 response, or the problem document if the service refuses the images permanently;
            the added field ``http`` holds the status code.
        :raises GaveUp: when the group is not accepted in time, or is refused for a reason other than its images.
        """
        metadata = json.dumps([image.metadata for image, _ in images])
        files: list[tuple[str, Any]] = [("metadata", (None, metadata, "application/json"))]
        files += [("file", (image.metadata["filename"], data, "application/octet-stream")) for image, data in images]
        headers = {"Idempotency-Key": key, "Prefer": "handling=lenient"}
        request = self._client.build_request("POST", "/upload_image_batch", files=files, headers=headers)
        request.headers["Content-Digest"] = _content_digest(request)

        def post() -> httpx.Response:
            return self._client.send(request)

        mismatch_until = 0.0
        while True:
            response = self._request(post, "A batch was not accepted", self._retry_for_s)
            body = _body(response)
            if body.get("code") != "idempotency_mismatch":
                break
            mismatch_until = mismatch_until or time.monotonic() + self._settled_s
            if time.monotonic() > mismatch_until:
                break
            if self._stop.wait(min(2.0, self._settled_s)):
                raise GaveUp("A batch was not accepted: an earlier request with the same key is still in progress")
        accepted = response.status_code == httpx.codes.ACCEPTED and {"batch_id", "total", "images"} <= body.keys()
        if accepted or (response.status_code in _REFUSED_IMAGES and body):
            return body | {"http": response.status_code}
        raise GaveUp(self._refusal(response, body, [image for image, _ in images]))

    def fetch_batch(self, batch_id: str, until: float) -> dict[str, Any]:
        """Request a batch.

        The service responds when the batch is finished, but after at most 20 s, and not later than ``until``.

        :param until: time on the monotonic clock, in seconds.
        :returns: the batch, whether it is finished or not, or the problem document if the batch no longer exists.
        :raises GaveUp: when the service does not respond in time, or the response does not come from Shelfsight.
        """
        left = max(0.0, until - time.monotonic())

        def get() -> httpx.Response:
            return self._client.get(f"/image_batches/{batch_id}", params={"wait": int(min(left, _POLL_S))}, timeout=_POLL_S + 10)

        response = self._request(get, "The service does not respond", min(left, self._retry_for_s))
        body = _body(response)
        if "images" in body or response.status_code == httpx.codes.NOT_FOUND:
            return body
        raise GaveUp(self._refusal(response, body))

    def fetch_receipt(self, batch_id: str) -> dict[str, Any] | None:
        """Request the receipt of a batch.

        :returns: the receipt; None if the batch no longer exists, or is foreign.
        :raises GaveUp: when the service does not respond in time, refuses the API key, or is an older version.
        """
        response = self._request(lambda: self._client.get(f"/image_batches/{batch_id}/receipt"), "The service does not respond", self._retry_for_s)
        body = _body(response)
        if response.status_code == httpx.codes.NOT_FOUND and body.get("code") == "not_found":
            return None
        if {"batch_id", "images", "balance", "signature"} <= body.keys():
            return body
        raise GaveUp(self._refusal(response, body))

    def verify_receipt(self, receipt: dict[str, Any]) -> bool:
        """Return whether the service confirms the signature of a receipt.

        :raises GaveUp: in the same cases as ``fetch_receipt``.
        """
        response = self._request(lambda: self._client.post("/receipts/verify", json=receipt), "The service does not respond", self._retry_for_s)
        body = _body(response)
        if response.status_code == httpx.codes.OK and isinstance(body.get("valid"), bool):
            return bool(body["valid"])
        raise GaveUp(self._refusal(response, body))

    def fetch_error(self, image_id: str) -> str:
        """Return the code and the sentence of the error of a failed image; its status if it has none.

        :raises GaveUp: in the same cases as ``fetch_receipt``.
        """
        response = self._request(lambda: self._client.get(f"/images/{image_id}"), "The service does not respond", self._retry_for_s)
        body = _body(response)
        error = body.get("error")
        return f"{error['code']}: {error['detail']}" if isinstance(error, dict) else str(body.get("status", body.get("code", "failed")))

    def _refusal(self, response: httpx.Response, body: dict[str, Any], images: Sequence[Image] = ()) -> str:
        """Return why the service refuses a request, and what to do, without a full stop.

        :param images: the images in the request.
        """
        problem = _problem(response, body)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._has_key:
            return f"The service refuses this API key; use another one ({problem})"
        if response.status_code == httpx.codes.UNAUTHORIZED:
            return f"The service requires an API key; set {VARIABLE}, {FILE_OPTION} or {OPTION} ({problem})"
        if body.get("code") == "missing_scope" and isinstance(scope := body.get("scope"), str):
            return f"The API key lacks the scope {scope}; use a key that has it"
        if body.get("code") == "foreign_store" and (stores := _foreign_stores(body, images)):
            more = f" and {len(stores) - _MAX_STORES_NAMED} more" if len(stores) > _MAX_STORES_NAMED else ""
            named = ", ".join(json.dumps(store, ensure_ascii=False) for store in stores[:_MAX_STORES_NAMED])
            return f"The API key does not include the stores {named}{more}; use a key that includes them"
        return f"The service refused the request: {problem}"

    def _request(self, send: Callable[[], httpx.Response], failure: str, retry_for_s: float) -> httpx.Response:
        """Send a request. If it fails in a way that may be temporary, retry it for at most ``retry_for_s`` seconds.

        The retries use exponential backoff, but never begin before the time in ``Retry-After``.

        :raises GaveUp: when ``retry_for_s`` is over, or ``stop`` is set, before a response arrives that needs no retry.
            The message begins with ``failure``.
        """
        until = time.monotonic() + retry_for_s
        wait = _FIRST_WAIT_S
        while True:
            retry_after = 0.0
            try:
                response = send()
                if not _is_temporary(response):
                    return response
                reason = _problem(response, _body(response))
                retry_after = _retry_after(response)
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            pause = max(retry_after, random.uniform(wait / 2, wait))
            if time.monotonic() + pause > until or self._stop.wait(pause):
                raise GaveUp(f"{failure} ({reason})")
            wait = min(_MAX_WAIT_S, wait * 2)


def image_index(error: dict[str, Any]) -> int | None:
    """Return the index of the image to which an error of a problem document belongs; None if it belongs to none."""
    index = str(error["pointer"]).strip("/").split("/")[0]
    return int(index) if index.isdecimal() else None


def _parse_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
        valid = parsed.scheme in {"http", "https"} and parsed.host and (parsed.port is None or parsed.port in _PORTS)
    except httpx.InvalidURL:
        valid = False
    if not valid:
        raise UsageError(f"--url {url} is not the address of a service; use an address such as http://127.0.0.1:5000")
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _content_digest(request: httpx.Request) -> str:
    """Return the value of the ``Content-Digest`` header (RFC 9530), so that the service refuses a body that was changed on its way."""
    digest = hashlib.sha256()
    assert isinstance(request.stream, httpx.SyncByteStream)  # noqa: S101 -- the body of a multipart request is not asynchronous
    for piece in request.stream:  # each iteration begins at the start of the body
        digest.update(piece)
    return f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"


def _is_temporary(response: httpx.Response) -> bool:
    """Return whether the same request may succeed later, also because its body was changed on its way."""
    is_refused = response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    return response.status_code in _RETRIED or (is_refused and _body(response).get("code") == "digest_mismatch")


def _body(response: httpx.Response) -> dict[str, Any]:
    """Return the response's JSON object, or an empty dictionary if the body is anything else."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _problem(response: httpx.Response, body: dict[str, Any]) -> str:
    detail = f"{body['code']}: {body['detail']}" if {"code", "detail"} <= body.keys() else response.reason_phrase
    return f"HTTP {response.status_code} {detail}".strip()


def _foreign_stores(body: dict[str, Any], images: Sequence[Image]) -> list[str]:
    """Return the stores because of which a request was refused: those of the images that the problem document names."""
    indexes = {image_index(error) for error in body.get("errors", [])}
    return sorted({str(image.metadata["store_name"]) for index, image in enumerate(images) if index in indexes})


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds in the ``Retry-After`` header, at most ``_MAX_RETRY_AFTER_S``.

    Return 0 if the header is missing or holds a date.
    """
    value = response.headers.get("Retry-After", "")
    return min(_MAX_RETRY_AFTER_S, float(value)) if value.isdecimal() else 0.0
