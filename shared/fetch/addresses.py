"""Which addresses are public: those that anybody on the Internet reaches as well as this machine does.

The tables are written out because ``ipaddress.is_global`` differs between patch releases of Python and knows neither transition
mechanisms nor clouds. Sources: IANA's special-purpose registries for IPv4 and IPv6 (RFC 6890, as of 2025), IANA's IPv6 global
unicast space, and the clouds' own pages.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers' NAT (RFC 6598); Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's WireServer: a registered address that every virtual machine there reaches
        "169.254.0.0/16",  # link-local; the clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, given up (RFC 7526)
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_UNICAST_6: Final = IPv6Network("2000::/3")
"""All that IANA has opened: whatever lies outside (loopback, unique local, link-local, site-local, multicast, compatible, 64:ff9b:1::/48,
discard, SRv6) is not public, nor is what is opened one day before somebody has looked at it here."""
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: leads to the IPv4 address inside
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The upper half of an interface id that is followed by an IPv4 address (RFC 5214); it may stand behind any prefix."""


def network(text: str) -> Network:
    """Read a network as addresses are compared with it.

    :raises ValueError: it is none; or has IPv4 addresses written as IPv6 (``::ffff:192.0.2.0/120``), and would match nothing.
    """
    read = ip_network(text)
    if isinstance(read, IPv6Network) and read.subnet_of(_MAPPED):
        raise ValueError(f"{text!r} is a network of IPv4, and is written so")
    return read


def plain(address: Address) -> Address:
    """Give an IPv4 address that is written as IPv6 (``::ffff:192.0.2.1``) as what the socket makes of it."""
    return _last_32_bits(address) if _lies_in(address, _MAPPED) else address


def led_to(address: Address) -> Address:
    """Give the address that packets end at: behind NAT64's well-known prefix (RFC 6052) it is the IPv4 address inside.

    Networks with nothing but IPv6 reach every IPv4 source that way, so the prefix cannot be refused as a whole.
    """
    address = plain(address)
    return _last_32_bits(address) if _lies_in(address, _NAT64) else address


def is_public(address: Address) -> bool:
    """See whether packets end at a public address."""
    address = led_to(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None or address not in _UNICAST_6:
        return False
    return (int(address) >> 32) & 0xFFFF_FFFF not in _ISATAP and not any(address in network for network in _NOT_PUBLIC_6)


def whose(address: Address) -> Network | Address:
    """Give what one party has: an IPv4 address; of IPv6 a whole /64, for one machine has all of it."""
    address = plain(address)
    return address if isinstance(address, IPv4Address) else IPv6Network((int(address), 64), strict=False)


def _lies_in(address: Address, network: IPv6Network) -> bool:
    return isinstance(address, IPv6Address) and address in network


def _last_32_bits(address: Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)
