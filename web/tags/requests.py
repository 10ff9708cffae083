"""Read the paths, the cursors and the preconditions of requests about tags."""

import base64
import binascii

from flask import request

from shared.catalog import tags
from shared.catalog.image_tags import Precondition
from shared.catalog.tag_rules import MAX_KEY_LENGTH, key_of, read_name
from web.http.preconditions import check_if_match

MAX_CURSOR_LENGTH = 6 * MAX_KEY_LENGTH


def read_tag_name(text: str) -> str:
    """Return the name of a tag from a path.

    :raises NotFound: when no tag can have this name.
    """
    try:
        return read_name(text)
    except ValueError:
        raise tags.not_found() from None


def precondition() -> Precondition:
    """Return the function that refuses the current request if its ``If-Match`` names another version, or None without this header."""
    return check_if_match if "If-Match" in request.headers else None


def encode_cursor(key: str) -> str:
    """Return the cursor of a list of tags for the key of its last tag."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str | None:
    """Return the key in a cursor, or None if ``encode_cursor`` has not made it."""
    try:
        key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
    return key if encode_cursor(key) == cursor and key_of(key) == key else None


def cursor_text(text: str) -> str:
    """Check that the value of the parameter ``cursor`` is not too long, and return it."""
    if len(text) > MAX_CURSOR_LENGTH:
        raise ValueError("The cursor is too long; send the `next_cursor` of the previous page.")
    return text
