"""Addresses, headers and helpers for the tests of inspections over HTTP."""

from urllib.parse import quote

from werkzeug.test import TestResponse

from shared import settings
from shared.storage.mongo import Db
from tests.support.web_client import open_services
from web.http.response_cache import ResponseCache

URL = "https://example.org/shelf.jpg"
DESCRIBE = f"/img?{quote(URL, safe='')}"
AUGMENT = f"/?url={quote(URL, safe='')}"
JSON = {"Accept": "application/json"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SHORT_WAIT = settings.Inspect(wait_s=0.05, per_minute=10_000, max_source_bytes=100_000)


def code(response: TestResponse) -> str:
    code: str = response.get_json(force=True)["code"]
    return code


def pointers(response: TestResponse) -> list[str]:
    return [error["pointer"] for error in response.get_json(force=True)["errors"]]


def clear_response_caches() -> None:
    """Clear the response caches of all clients, so that results come from the database."""
    for services in open_services:
        services.response_cache = ResponseCache()


def expire_all(db: Db) -> None:
    """Make every result stale."""
    db.inspections.update_many({}, [{"$set": {"fresh_until": {"$subtract": ["$fresh_until", 1_000_000]}}}])
    clear_response_caches()
