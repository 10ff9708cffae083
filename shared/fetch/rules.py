"""The limits and the allow and block lists of fetching, as plain values.

``shared.settings.Fetch`` adds the environment variables ``FETCH_...`` to this model. The fetch package itself reads no
environment and does not import the settings.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from shared.fetch.addresses import Network


class FetchRules(BaseModel):
    """Limits of one process, and lists of hosts and networks.

    Domains and hosts are spelled as ``urls`` returns them: lower-case ASCII without a trailing dot.
    """

    model_config = ConfigDict(frozen=True)
    resolve_s: float = Field(3.0, gt=0, description="Seconds to resolve a host name.")
    connect_s: float = Field(
        5.0, gt=0, description="Seconds to connect: all addresses that are tried, and the TLS handshake."
    )
    first_byte_s: float = Field(
        10.0, gt=0, description="Seconds from sending the request to the end of the response headers."
    )
    whole_s: float = Field(20.0, gt=0, description="Seconds for a whole fetch, redirects included.")
    max_redirects: int = Field(3, ge=0, le=10)
    max_header_bytes: int = Field(
        32 * 1024, gt=0, description="Maximum bytes of the headers of a response, interim responses included."
    )
    max_at_once: int = Field(32, gt=0, description="Concurrent fetches in a process; more get a 429.")
    max_per_source: int = Field(4, gt=0, description="Concurrent fetches from one host, and from one address.")
    blocked_domains: tuple[str, ...] = Field(
        (), description="JSON list of domains to block, with their subdomains. Takes precedence over all other lists."
    )
    allowed_domains: tuple[str, ...] = Field(
        (), description="JSON list of the only domains to fetch from, with their subdomains. Empty: all."
    )
    permitted_hosts: tuple[str, ...] = Field(
        (), description="JSON list of host names that may resolve to any address, with any port."
    )
    blocked_networks: tuple[Network, ...] = Field(
        (), description="JSON list of public addresses to block because they belong to your own network."
    )
    permitted_networks: tuple[Network, ...] = Field(
        (), description="JSON list of addresses that need not be public, with any port."
    )
    ca_file: Path | None = Field(
        None,
        description="PEM file of certificate authorities to trust in addition to the public ones, as of an intranet.",
    )
