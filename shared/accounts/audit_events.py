"""The events of the security log: their types, their members, and their ids.

An event contains no secrets. It consists of texts that the service itself has chosen, except for the user name, the
request id, and details such as a host name, which can come from a client. So each text is limited, and what looks like a
key or a token is removed from it.

Events that one client can cause again and again without limit are *counted*: one document stands for all events of a type
with the same subject in a window of time.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Literal, get_args

from shared.fetch.addresses import client_key
from shared.ids import EVENT_ID_PATTERN

EventType = Literal[
    "user.signed_up", "user.created", "user.signed_in", "sign_in.failed", "sign_in.throttled", "token.reused",
    "user.signed_out", "user.password_changed", "user.password_reset", "user.changed", "api_key.created",
    "api_key.deleted", "api_key.used", "invitation.created", "reset_link.created", "signing_keys.rotated",
    "receipt_key.shown", "receipt_key.revoked",
    "batch.deleted", "batch.cancelled", "batch.reprocessed", "images.reprocessed", "image.changed", "image.deleted", "tag.changed", "tag.deleted",
    "queue.paused", "queue.resumed", "request.refused",
]  # fmt: skip
Detail = str | int | bool | Sequence[str] | None

EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)
MAX_TEXT: Final = 200
_MAX_DETAILS: Final = 20
_MAX_ELEMENTS: Final = 50
_MAX_SCANNED: Final = 8192
_EVENT_ID: Final = re.compile(EVENT_ID_PATTERN)
EPOCH: Final = datetime(1970, 1, 1)
_SECRET: Final = re.compile(r"\bsfs_[A-Za-z0-9]+_[A-Za-z0-9_-]+|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)+")
"""The forms of an API key and of a JSON Web Token. People paste them into the wrong fields."""


@dataclass(frozen=True, slots=True)
class Window:
    """How the events of a type are counted.

    A process distinguishes at most ``max_subjects`` subjects in ``length``; the events of all others are counted
    together. The first event is stored within a second, and further ones at most once in ``flush_s`` seconds.
    """

    length: timedelta
    flush_s: float
    max_subjects: int

    def start(self, at: datetime) -> datetime:
        """Return the beginning of the window that contains a time."""
        return at - (at - EPOCH) % self.length


_MINUTE: Final = Window(timedelta(minutes=1), 10.0, 1000)
_DAY: Final = Window(timedelta(days=1), 600.0, 10_000)
WINDOWS: Final[Mapping[EventType, Window]] = {
    "request.refused": _MINUTE,
    "sign_in.failed": _MINUTE,
    "sign_in.throttled": _MINUTE,
    "token.reused": _MINUTE,
    "api_key.used": _DAY,
}
"""The types of events that are counted."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened: what (``type``, ``target``, ``details``), who did it, and from where.

    ``actor`` and ``account`` have the form of those of a ``Principal``; the actor can also be ``permissions.OPERATOR``. Both are None
    if the request had no valid credentials. ``username`` is the user who acted, or who was to sign in. ``key_id`` is the id
    of an API key, not the key. ``address`` is the address of the client. ``target`` names what was changed, as
    ``<kind>:<id>``.
    """

    type: EventType
    actor: str | None = None
    account: str | None = None
    username: str | None = None
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None
    target: str | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)

    def members(self) -> dict[str, Any]:
        """Return the members that are set, apart from the type, as they are stored and logged."""
        names = ("actor", "account", "username", "key_id", "address", "request_id", "target")
        members: dict[str, Any] = {name: clean(text) for name in names if (text := getattr(self, name)) is not None}
        if self.details:
            members["details"] = {name: _clean_detail(value) for name, value in list(self.details.items())[:_MAX_DETAILS]}
        return members

    def subject(self) -> tuple[str, ...]:
        """Return what distinguishes counted events of the same type: who did it, the target, and the error code.

        An event without an actor belongs to the network of its client, and to the user who was to sign in.
        """
        who = self.actor if self.actor is not None else client_key(self.address or "")
        return (who, self.username or "", self.target or "", str(self.details.get("code", "")))


def new_event_id(at: datetime) -> str:
    """Return a new id for an event that is not counted. Ids sort by time."""
    return _time_part(at) + secrets.token_hex(10)


def count_id(event_type: EventType, subject: tuple[str, ...], window_start: datetime) -> str:
    """Return the id of the document that counts the events of a subject in a window. It is the same in all processes."""
    digest = sha256("\0".join((event_type, *subject)).encode(errors="backslashreplace"))
    return _time_part(window_start) + digest.hexdigest()[:20]


def smallest_event_id(at: datetime) -> str:
    """Return the smallest possible id of an event at a time (naive UTC), or of a window that begins at this time."""
    return _time_part(at) + 20 * "0"


def largest_event_id(at: datetime) -> str:
    """Return the largest possible id of an event at a time (naive UTC), or of a window that begins at this time."""
    return _time_part(at) + 20 * "f"


def is_event_id(text: str) -> bool:
    """Return whether a text has the form of an event id."""
    return _EVENT_ID.fullmatch(text) is not None


def clean(text: str) -> str:
    """Return a text without secrets and surrogates, which MongoDB cannot store, and with at most ``MAX_TEXT`` characters."""
    without_secrets = _SECRET.sub("[secret]", text[:_MAX_SCANNED])
    return without_secrets.encode(errors="backslashreplace").decode()[:MAX_TEXT]


def _time_part(at: datetime) -> str:
    return f"{max(0, (at - EPOCH) // timedelta(milliseconds=1)):012x}"


def _clean_detail(value: Detail) -> Any:
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, int):
        return value
    more = [f"({len(value) - _MAX_ELEMENTS} more)"] if len(value) > _MAX_ELEMENTS else []
    return [clean(text) for text in value[:_MAX_ELEMENTS]] + more
