"""Decides which addresses are public, that is, reachable from anywhere on the Internet.

This module has its own tables because ``ipaddress.is_global`` differs between patch releases of Python, and because it
covers neither transition mechanisms nor the internal services of cloud providers. The sources are IANA's
special-purpose registries for IPv4 and IPv6 (RFC 6890, as of 2025), IANA's registry of the IPv6 global unicast space,
and the documentation of the cloud providers.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL_4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux treats 0.0.0.0 as loopback
        "10.0.0.0/8",  # private networks
        "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); the metadata service of Alibaba Cloud
        "127.0.0.0/8",  # loopback addresses
        "168.63.129.16/32",  # Azure's WireServer: a registered address that every virtual machine on Azure can reach
        "169.254.0.0/16",  # link-local addresses; the metadata services of cloud providers
        "172.16.0.0/12",  # private networks
        "192.0.0.0/24",  # addresses for protocols; the metadata service of Oracle Cloud
        "192.0.2.0/24",  # addresses for documentation
        "192.88.99.0/24",  # relays of 6to4, which is deprecated (RFC 7526)
        "192.168.0.0/16",  # private networks
        "198.18.0.0/15",  # addresses for benchmarking
        "198.51.100.0/24",  # addresses for documentation
        "203.0.113.0/24",  # addresses for documentation
        "224.0.0.0/4",  # multicast addresses
        "240.0.0.0/4",  # reserved addresses; broadcast
    )
)
_UNICAST_6: Final = IPv6Network("2000::/3")
"""The global unicast space from which IANA allocates addresses. All addresses outside of it (loopback, unique local,
link-local, site-local, multicast, IPv4-compatible, 64:ff9b:1::/48, discard, SRv6) count as not public. If IANA opens
another space in the future, its addresses count as not public until this table is updated."""
_SPECIAL_6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # addresses for protocols: Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # addresses for documentation
        "2002::/16",  # 6to4: packets are sent to the embedded IPv4 address
        "3fff::/20",  # addresses for documentation (RFC 9637)
    )
)
_IPV4_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The possible upper halves of an ISATAP interface identifier (RFC 5214); its lower half is an IPv4 address. Such an
identifier can follow any network prefix."""


def parse_network(text: str) -> Network:
    """Parse a network for comparison with addresses.

    :raises ValueError: when the text is not a network, or is an IPv4 network in IPv6 notation
        (``::ffff:192.0.2.0/120``). Such a network would match no address, because addresses are unmapped first.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        raise ValueError(f"{text!r} is an IPv4 network in IPv6 notation; use IPv4 notation")
    return network


def unmap(address: Address) -> Address:
    """Convert an IPv4-mapped IPv6 address (``::ffff:192.0.2.1``) to its IPv4 address.

    A socket for the mapped address connects to this IPv4 address, so the rules for this IPv4 address must apply. Any
    other address is returned unchanged.
    """
    return _last_32_bits(address) if _lies_in(address, _IPV4_MAPPED) else address


def effective_address(address: Address) -> Address:
    """Return the address at which packets to ``address`` arrive.

    For an address with the well-known prefix of NAT64 (RFC 6052), this is the embedded IPv4 address. The prefix cannot
    be refused as a whole, because IPv6-only networks reach every IPv4 source through it.
    """
    address = unmap(address)
    return _last_32_bits(address) if _lies_in(address, _NAT64) else address


def is_public(address: Address) -> bool:
    """Return whether packets to ``address`` arrive at a public address."""
    address = effective_address(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    if address.scope_id is not None or address not in _UNICAST_6:
        return False
    return (int(address) >> 32) & 0xFFFF_FFFF not in _ISATAP and not any(address in network for network in _SPECIAL_6)


def client_network(address: Address) -> Network | Address:
    """Return the address or network that limits treat as one client, or as one source.

    An IPv4 address counts on its own. An IPv6 address counts as its /64 network, because a single machine usually has
    all addresses of such a network.
    """
    address = unmap(address)
    return address if isinstance(address, IPv4Address) else IPv6Network((int(address), 64), strict=False)


@lru_cache(maxsize=4096)
def client_key(client: str) -> str:
    """Return the string that identifies a client: its IPv4 address, or the /64 network of its IPv6 address."""
    try:
        return str(client_network(ip_address(client)))
    except ValueError:  # a proxy forwarded an invalid address; all clients with an invalid address count as one client
        return "unknown"


def _lies_in(address: Address, network: IPv6Network) -> bool:
    return isinstance(address, IPv6Address) and address in network


def _last_32_bits(address: Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)
