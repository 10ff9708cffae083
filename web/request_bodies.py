"""Read the body of the current request, within the limits of the settings."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from pydantic import BaseModel

from shared.accounts.authenticator import MAX_AGE_S
from web.http import authentication, json_model
from web.http.request_body import RequestBody, open_request_body
from web.services import current_services

Model = TypeVar("Model", bound=BaseModel)


def open_body() -> AbstractContextManager[RequestBody]:
    """Open the body of the current request. Its bytes count against the budget of the process until the context ends."""
    services = current_services()
    return open_request_body(services.body_budget, services.settings.web.body_patience_s)


def read(model: type[Model], *, max_bytes: int = json_model.MAX_BYTES, max_values: int = json_model.MAX_VALUES) -> Model:
    """Read the JSON body of the current request, as ``web.http.json_model.read_model`` describes.

    A body can arrive slowly. Then the credentials are checked again, so read ``current_principal`` after this.

    :raises Unauthorized: when the credentials are no longer valid.
    :raises Forbidden: when the principal may no longer make the request.
    """
    with _rechecked_body() as body:
        return json_model.read_model(body, model, max_bytes=max_bytes, max_values=max_values)


def read_json(*, max_bytes: int, max_values: int) -> bytes:
    """Read the JSON body of the current request like ``read``, and return its text without a byte order mark.

    It is the text that the client has sent, so that the caller can see what a parser would hide, such as repeated members.
    """
    with _rechecked_body() as body:
        return json_model.read_text(body, max_bytes=max_bytes, max_values=max_values)


@contextmanager
def _rechecked_body() -> Iterator[RequestBody]:
    began = time.monotonic()
    with open_body() as body:
        yield body
    if time.monotonic() - began > MAX_AGE_S and authentication.is_protected():
        authentication.recheck()
