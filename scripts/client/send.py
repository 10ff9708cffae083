"""Sending one batch until it is answered: multipart, with its key, patient with a service that is busy or away."""

import json
import random
import threading
import time
from typing import Any, Final

import httpx

from scripts.client.plan import Batch

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_AGAIN: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507})
TIMEOUT: Final = httpx.Timeout(120.0, connect=10.0)


class GaveUp(Exception):
    """The service did not take a batch within the time allowed."""


class Sender:
    """Sends batches; may be used from several threads."""

    def __init__(self, url: str, token: str | None, retry_for_s: float, stop: threading.Event) -> None:
        """Open a client; ``stop`` ends all waiting."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT, headers=headers, trust_env=False)
        self._retry_for, self._stop = retry_for_s, stop

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def limits(self) -> dict[str, Any]:
        """Ask what an upload may be.

        :raises GaveUp: nobody answers there.
        """
        return dict(self._patiently(lambda: self._client.get("/limits"), "the service").json())

    def send(self, batch: Batch) -> dict[str, Any]:
        """Send a batch and give ``{"status": 202, ...}`` or the problem that refuses it for good.

        Multipart, because base64 makes a third more bytes and costs both sides the coding.

        :raises GaveUp: not taken in time. :raises OSError: a picture cannot be read.
        """
        metadata = json.dumps([picture.meta for picture in batch.pictures])
        files: list[tuple[str, Any]] = [("metadata", (None, metadata, "application/json"))]
        files += [("file", (picture.path.name, picture.path.read_bytes(), "application/octet-stream")) for picture in batch.pictures]
        headers = {"Idempotency-Key": batch.key, "Prefer": "handling=lenient"}
        answer = self._patiently(lambda: self._client.post("/upload_image_batch", files=files, headers=headers), "a batch")
        try:
            body = answer.json()
        except ValueError:
            body = {"detail": answer.text[:200]}
        return {"http": answer.status_code, **body}

    def finished(self, batch_id: str) -> dict[str, Any] | None:
        """Wait up to 20 s for a batch; give it when it is finished."""
        answer = self._patiently(lambda: self._client.get(f"/image_batches/{batch_id}", params={"wait": 20}), "a batch")
        body: dict[str, Any] = answer.json()
        if answer.status_code != httpx.codes.OK:
            raise GaveUp(f"batch {batch_id}: {body.get('detail', answer.status_code)}")
        return body if body["finished_at"] else None

    def _patiently(self, call: Any, what: str) -> httpx.Response:
        until = time.monotonic() + self._retry_for
        wait = _FIRST_WAIT_S
        while True:
            asked = 0.0
            try:
                answer: httpx.Response = call()
                if answer.status_code not in _AGAIN:
                    return answer
                reason = f"HTTP {answer.status_code}"
                asked = _retry_after(answer)
            except httpx.TransportError as error:
                reason = type(error).__name__
            pause = max(asked, random.uniform(wait / 2, wait))
            if time.monotonic() + pause > until or self._stop.wait(pause):
                raise GaveUp(f"{what} was not taken ({reason})")
            wait = min(_LONGEST_WAIT_S, wait * 2)


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(300.0, float(text)) if text.isdigit() else 0.0
