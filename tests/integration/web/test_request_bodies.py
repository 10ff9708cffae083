"""Rights that are taken away while a body arrives do not count any more."""

import io
import json
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from shared.accounts import authenticator
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from web import request_bodies


class SlowBody(io.BytesIO):
    """A body during whose arrival something happens."""

    def __init__(self, content: bytes, act: Callable[[], object]) -> None:
        super().__init__(content)
        self._act = act

    def read(self, size: int | None = -1, /) -> bytes:
        self._act()
        return super().read(size)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BytesIO accepts any writable buffer
        self._act()
        return super().readinto(buffer)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", f"/images/{'0' * 36}/annotations", {"boxes": []}),
        ("POST", f"/images/{'0' * 36}/annotations/accept", {}),
        ("PATCH", f"/images/{'0' * 36}", {"camera_id": "2"}),
        ("POST", "/images/tags", {"ids": ["0" * 36], "add": ["a"]}),
        ("POST", "/tags", {"name": "a"}),
    ],
    ids=["annotations", "acceptance", "image", "many images", "tag"],
)
@pytest.mark.parametrize(
    ("change", "refused"),
    [(None, (401, "unauthorized")), ({"scopes": ["exports:read"], "role": None}, (403, "missing_scope"))],
    ids=["deleted key", "fewer scopes"],
)
def test_credentials_are_checked_again_after_a_slow_body(
    closed_web: FlaskClient,
    db: Db,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: dict[str, object],
    change: dict[str, object] | None,
    refused: tuple[int, str],
) -> None:
    for module in (authenticator, request_bodies):
        monkeypatch.setattr(module, "MAX_AGE_S", 0.0)
    key = make_key(db)
    query = {"_id": key.split("_")[1]}

    def take_away() -> None:
        if change is None:
            db.api_keys.delete_one(query)
        else:
            db.api_keys.update_one(query, {"$set": change})

    content = json.dumps(body).encode()
    stream = SlowBody(content, take_away)
    response = closed_web.open(path, method=method, input_stream=stream, content_length=len(content), content_type="application/json", headers=bearer(key))
    assert (response.status_code, response.get_json()["code"]) == refused
    assert not db.tags.count_documents({})
