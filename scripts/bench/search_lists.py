"""The service's lists of images, as ``scripts/bench/search`` requests them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from flask.testing import FlaskClient

from shared.storage.mongo import Db, Document

_TOO_SLOW: Final = "query_too_slow"


class QueryTooSlow(Exception):
    """The service has ended a query because it took too long (``query_too_slow``)."""


@dataclass(frozen=True, slots=True)
class Lists:
    """The service in this process, and its database."""

    web: FlaskClient
    db: Db

    def get_images(self, parameters: Mapping[str, str]) -> tuple[float, Document]:
        """Request the list of images; see ``request``."""
        return self.request("GET", "/images", query_string=dict(parameters))

    def get_similar(self, image_id: str) -> tuple[float, Document]:
        """Request the images that look like an image; see ``request``."""
        return self.request("GET", f"/images/{image_id}/similar")

    def request(self, method: str, path: str, **options: Any) -> tuple[float, Document]:
        """Make a request.

        :returns: the seconds until the whole response was read, and the parsed response.
        :raises QueryTooSlow: when the service has ended the query.
        :raises RuntimeError: when the response is another error.
        """
        started = time.perf_counter()
        response = self.web.open(path, method=method, **options)
        body = response.data
        elapsed = time.perf_counter() - started
        found: Document = orjson.loads(body)
        if found.get("code") == _TOO_SLOW:
            raise QueryTooSlow
        if response.status_code >= 400:
            raise RuntimeError(f"{method} {path} {options}: unexpected status {response.status_code}: {body[:300]!r}")
        return elapsed, found
