"""Decides which addresses are public, that is, reachable from anywhere on the Internet.

The tables are written out because ``ipaddress.is_global`` differs between patch releases of Python and covers neither
transition mechanisms nor the internal services of cloud providers. Sources: IANA's special-purpose registries for IPv4
and IPv6 (RFC 6890, as of 2025), IANA's IPv6 global unicast space, and the documentation of the cloud providers.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL_4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux treats 0.0.0.0 as loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); the metadata service of Alibaba Cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's WireServer: a registered address that every virtual machine on Azure can reach
        "169.254.0.0/16",  # link-local; the metadata services of cloud providers
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; the metadata service of Oracle Cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526)
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; broadcast
    )
)
_UNICAST_6: Final = IPv6Network("2000::/3")
"""The global unicast space that IANA allocates from. Everything outside (loopback, unique local, link-local,
site-local, multicast, IPv4-compatible, 64:ff9b:1::/48, discard, SRv6) is not public. Space that IANA opens in future is
not public until this table is reviewed."""
_SPECIAL_6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: leads to the embedded IPv4 address
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_IPV4_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""Upper half of an interface identifier whose lower half is an IPv4 address (RFC 5214); it can follow any prefix."""


def parse_network(text: str) -> Network:
    """Parse a network that addresses are compared with.

    :raises ValueError: when it is not a network, or is an IPv4 network in IPv6 notation (``::ffff:192.0.2.0/120``),
        which would match no address.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        raise ValueError(f"{text!r} is an IPv4 network in IPv6 notation; write it in IPv4 notation")
    return network


def unmap(address: Address) -> Address:
    """Return an IPv4-mapped IPv6 address (``::ffff:192.0.2.1``) as the IPv4 address that a socket connects to."""
    return _last_32_bits(address) if _lies_in(address, _IPV4_MAPPED) else address


def effective_address(address: Address) -> Address:
    """Return the address that packets arrive at.

    Behind the well-known prefix of NAT64 (RFC 6052) it is the embedded IPv4 address. IPv6-only networks reach every
    IPv4 source that way, so the prefix cannot be refused as a whole.
    """
    address = unmap(address)
    return _last_32_bits(address) if _lies_in(address, _NAT64) else address


def is_public(address: Address) -> bool:
    """Return whether packets to this address arrive at a public address."""
    address = effective_address(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    if address.scope_id is not None or address not in _UNICAST_6:
        return False
    return (int(address) >> 32) & 0xFFFF_FFFF not in _ISATAP and not any(address in network for network in _SPECIAL_6)


def client_network(address: Address) -> Network | Address:
    """Return the addresses that count as one client or source.

    These are a single IPv4 address, or for IPv6 the /64, because one machine has all of it.
    """
    address = unmap(address)
    return address if isinstance(address, IPv4Address) else IPv6Network((int(address), 64), strict=False)


def _lies_in(address: Address, network: IPv6Network) -> bool:
    return isinstance(address, IPv6Address) and address in network


def _last_32_bits(address: Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)
