"""Units, types, and functions that several groups of settings use to parse and check values."""

import json
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, TypeVar

MIB: Final = 1024 * 1024
Network = IPv4Network | IPv6Network
Item = TypeVar("Item")


def parse_json_list(variable: str, value: object, parse_item: Callable[[str], Item], example: str) -> tuple[Item, ...]:
    """Parse a JSON list.

    pydantic-settings could parse it too, but its error message does not show what to write instead.
    """
    try:
        items = json.loads(value) if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise TypeError("the value is not a list")
        return tuple(parse_item(str(item)) for item in items)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{variable} must be a JSON list like {example}: {error}") from None


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address names this machine, and can be reached from no other one."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def require(rule_holds: bool, sentence: str) -> None:  # noqa: FBT001 -- reads like an assertion
    """Raise ``ValueError`` with a sentence for the operator if a rule about settings does not hold."""
    if not rule_holds:
        raise ValueError(sentence)
