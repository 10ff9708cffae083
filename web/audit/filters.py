"""The query parameters that filter the list of security events."""

from collections.abc import Callable
from ipaddress import ip_interface
from typing import Any, Final

from shared.accounts.audit_events import EVENT_TYPES
from shared.fetch.addresses import client_key
from web.http import query


def _event_type(text: str) -> str:
    if text not in EVENT_TYPES:
        raise ValueError(f"This type is unknown. Valid values: {', '.join(EVENT_TYPES)}.")
    return text


def _client(text: str) -> str:
    """Return the client that an IP address belongs to. Its network is accepted, too, because events show it."""
    try:
        return client_key(str(ip_interface(text).ip))
    except ValueError:
        raise ValueError("The value is invalid; send an IP address.") from None


FILTERS: Final[dict[str, Callable[[str], Any]]] = {
    "type": _event_type,
    "username": query.text,
    "key_id": query.text,
    "address": _client,
    "target": query.text,
    "since": query.timestamp,
    "until": query.timestamp,
}
