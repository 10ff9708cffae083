"""May this URL be fetched, and from which addresses. Asked anew for each redirect.

The refusals name the rule, never what was found: no address, and not whether anything listens there.
"""

from dataclasses import dataclass
from typing import Final

from shared.errors import UrlRefused
from shared.fetch.addresses import Address, is_public, led_to
from shared.fetch.deadline import Clock
from shared.fetch.dns import Names, Resolver
from shared.fetch.rules import FetchRules
from shared.fetch.urls import Url

PORTS: Final = frozenset({80, 443})
_OWN_NAMES: Final = ("localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa", "onion")
"""Names of one's own network (RFC 6761, 6762 with its appendix G, 7686, 8375, ICANN's ``internal``): asking for them already tells too much."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be fetched, from one of these addresses and no others: the best one of each family, one or two."""

    url: Url
    addresses: tuple[Address, ...]


class Guard:
    """Knows the rules. Of many threads."""

    def __init__(self, rules: FetchRules, resolve: Resolver) -> None:
        """Keep the rules; nothing is asked yet."""
        self._rules = rules
        self._names = Names(resolve, rules.max_at_once)

    def check(self, url: Url, clock: Clock) -> Target:
        """Let a URL pass.

        :raises UrlRefused: ``blocked_host``, ``blocked_address``, ``bad_url`` (its port), ``unresolvable_host``.
        :raises UpstreamTimeout: its name was not resolved in time.
        """
        rules = self._rules
        named = url.address is None
        trusted = named and url.host in rules.permitted_hosts
        if not trusted and not self._may_be_asked_for(url):
            raise UrlRefused("Nothing is fetched from this host.", code="blocked_host")
        if named and any(_below(url.host, domain) for domain in rules.blocked_domains):
            raise UrlRefused("Nothing is fetched from this host.", code="blocked_host")
        clock.begin(rules.resolve_s)
        addresses = self._names.addresses(url.host, clock) if url.address is None else [url.address]
        # All of them: one bad address among good ones is no slip, but somebody's attempt.
        permitted = trusted or all(self._is_permitted(address) for address in addresses)
        if not permitted and not all(self._is_permitted(address) or self._is_open(address) for address in addresses):
            raise UrlRefused("The URL leads to an address that nothing is fetched from.", code="blocked_address")
        if not permitted and url.port not in PORTS:
            raise UrlRefused("Only the ports 80 and 443 are asked.")
        best = {address.version: address for address in reversed(addresses)}
        return Target(url, tuple(sorted(best.values(), key=addresses.index)))

    def _may_be_asked_for(self, url: Url) -> bool:
        allowed = self._rules.allowed_domains
        if allowed and (url.address is not None or not any(_below(url.host, domain) for domain in allowed)):
            return False
        # A name without a dot is completed with this network's own domains.
        return url.address is not None or ("." in url.host and not any(_below(url.host, own) for own in _OWN_NAMES))

    def _is_permitted(self, address: Address) -> bool:
        return any(led_to(address) in network for network in self._rules.permitted_networks)

    def _is_open(self, address: Address) -> bool:
        ends = (address, led_to(address))  # NAT64 may be blocked by its own prefix as well
        return is_public(address) and not any(end in network for network in self._rules.blocked_networks for end in ends)


def _below(name: str, domain: str) -> bool:
    """See whether a name is a domain's, the domain itself included; ``notexample.org`` is not ``example.org``'s."""
    return name == domain or name.endswith(f".{domain}")
