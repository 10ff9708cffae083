"""Decides whether a URL may be fetched, and from which addresses. The target of every redirect is checked, too.

The error sentence for a refused URL names only the rule. It discloses neither the address of the host nor whether any
service listens there.
"""

from dataclasses import dataclass
from typing import Final

from shared.errors import UrlRefused
from shared.fetch.addresses import Address, effective_address, is_public
from shared.fetch.deadline import Deadline
from shared.fetch.dns import NameResolver, ResolveFunction
from shared.fetch.rules import FetchRules
from shared.fetch.urls import Url

PORTS: Final = frozenset({80, 443})
_LOCAL_DOMAINS: Final = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "onion",
)
"""Domains of local networks (RFC 6761, RFC 6762 with its appendix G, RFC 7686, RFC 8375, and ICANN's ``internal``).
Names in these domains are not resolved, because the DNS query alone would disclose the name."""
_HOST_REFUSED: Final = (
    "The host of the URL is a local name, or this service does not allow it; use another public host."
)
_ADDRESS_REFUSED: Final = (
    "The URL leads to an address that is not public, or that this service blocks; use a URL with a public address."
)


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL that may be fetched, and the one or two addresses from which it may be fetched.

    These are the preferred IPv4 address and the preferred IPv6 address of the host, if it has addresses of both kinds.
    """

    url: Url
    addresses: tuple[Address, ...]


class FetchPolicy:
    """Applies the fetch rules to URLs. Thread-safe."""

    def __init__(self, rules: FetchRules, resolve: ResolveFunction) -> None:
        self._rules = rules
        self._resolver = NameResolver(resolve, rules.max_at_once)

    def check(self, url: Url, deadline: Deadline) -> Destination:
        """Check a URL against the rules, and resolve its host.

        :raises UrlRefused: when the host or its addresses are not allowed (``blocked_host``, ``blocked_address``), the
            port is not allowed (``bad_url``), or the host cannot be resolved (``unresolvable_host``).
        :raises UpstreamTimeout: when the host is not resolved in time.
        """
        rules = self._rules
        is_name = url.address is None
        is_permitted_host = is_name and url.host in rules.permitted_hosts
        if not is_permitted_host and not self._is_host_allowed(url):
            raise UrlRefused(_HOST_REFUSED, code="blocked_host")
        if is_name and any(_is_in_domain(url.host, domain) for domain in rules.blocked_domains):
            raise UrlRefused(_HOST_REFUSED, code="blocked_host")
        deadline.start_phase(rules.resolve_s)
        addresses = self._resolver.resolve(url.host, deadline) if url.address is None else [url.address]
        # Every address must be allowed. A name with both public and internal addresses indicates an attack.
        permitted = is_permitted_host or all(self._is_permitted_address(address) for address in addresses)
        if not permitted and not all(
            self._is_permitted_address(address) or self._is_public_address(address) for address in addresses
        ):
            raise UrlRefused(_ADDRESS_REFUSED, code="blocked_address")
        if not permitted and url.port not in PORTS:
            raise UrlRefused("The port of the URL is not allowed; use port 80 or 443.")
        best = {address.version: address for address in reversed(addresses)}
        return Destination(url, tuple(sorted(best.values(), key=addresses.index)))

    def _is_host_allowed(self, url: Url) -> bool:
        allowed = self._rules.allowed_domains
        if allowed and (url.address is not None or not any(_is_in_domain(url.host, domain) for domain in allowed)):
            return False
        # A name without a dot is not allowed, because the system resolver would append the search domains of the local
        # network to it.
        return url.address is not None or (
            "." in url.host and not any(_is_in_domain(url.host, local) for local in _LOCAL_DOMAINS)
        )

    def _is_permitted_address(self, address: Address) -> bool:
        return any(effective_address(address) in network for network in self._rules.permitted_networks)

    def _is_public_address(self, address: Address) -> bool:
        forms = (address, effective_address(address))  # the block list can also contain the NAT64 prefix itself
        return is_public(address) and not any(
            form in network for network in self._rules.blocked_networks for form in forms
        )


def _is_in_domain(name: str, domain: str) -> bool:
    """Return whether a name is the domain or one of its subdomains. ``notexample.org`` is not in ``example.org``."""
    return name == domain or name.endswith(f".{domain}")
