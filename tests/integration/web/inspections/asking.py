"""What the tests of inspections over HTTP share."""

from urllib.parse import quote

from werkzeug.test import TestResponse

from shared import settings
from shared.storage.mongo import Db
from tests.support.web_client import open_services
from web.inspections.response_cache import Answers

URL = "https://example.org/shelf.jpg"
IMG = f"/img?{quote(URL, safe='')}"
LOOK = f"/?url={quote(URL, safe='')}"
JSON = {"Accept": "application/json"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
IMPATIENT = settings.Inspect(wait_s=0.05, per_minute=10_000, max_source_bytes=100_000)


def code(answer: TestResponse) -> str:
    said: str = answer.get_json(force=True)["code"]
    return said


def pointers(answer: TestResponse) -> list[str]:
    return [error["pointer"] for error in answer.get_json(force=True)["errors"]]


def forget_answers() -> None:
    """Let the web process know nothing any more but what is in the database."""
    for services in open_services:
        services.answers = Answers()


def age(db: Db) -> None:
    """Let all that is known be no longer fresh."""
    db.inspections.update_many({}, [{"$set": {"fresh_until": {"$subtract": ["$fresh_until", 1_000_000]}}}])
    forget_answers()
