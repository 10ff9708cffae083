"""The fetch rules: limits, and lists of allowed and blocked hosts and networks.

``shared.settings.Fetch`` extends this model and reads its values from the environment variables ``FETCH_...``. The
package ``shared.fetch`` itself reads no environment variables and does not import the settings.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from shared.fetch.addresses import Network


class FetchRules(BaseModel):
    """Limits for the fetches of one process, and lists of hosts and networks.

    Domains and hosts have the canonical spelling of ``shared.fetch.urls``: lower-case ASCII without a trailing dot.
    """

    model_config = ConfigDict(frozen=True)
    resolve_s: float = Field(3.0, gt=0, description="Maximum seconds to resolve a host name.")
    connect_s: float = Field(
        5.0,
        gt=0,
        description="Maximum seconds to connect, including the attempts with all addresses and the TLS handshake.",
    )
    first_byte_s: float = Field(
        10.0, gt=0, description="Maximum seconds from sending the request to the end of the response headers."
    )
    whole_s: float = Field(20.0, gt=0, description="Maximum seconds for a whole fetch, including redirects.")
    max_redirects: int = Field(3, ge=0, le=10)
    max_header_bytes: int = Field(
        32 * 1024, gt=0, description="Maximum bytes of response headers, including those of interim responses."
    )
    max_at_once: int = Field(
        32, gt=0, description="Maximum concurrent fetches in a process; more are answered with 429."
    )
    max_per_source: int = Field(4, gt=0, description="Maximum concurrent fetches from one host or one address.")
    blocked_domains: tuple[str, ...] = Field(
        (), description="JSON list of domains to block, with their subdomains. Takes precedence over all other lists."
    )
    allowed_domains: tuple[str, ...] = Field(
        (),
        description="JSON list of the only allowed domains, with their subdomains. If the list is empty, all domains "
        "are allowed.",
    )
    permitted_hosts: tuple[str, ...] = Field(
        (), description="JSON list of host names that may resolve to any address, with any port."
    )
    blocked_networks: tuple[Network, ...] = Field(
        (),
        description="JSON list of networks with public addresses to block because they are part of your own network.",
    )
    permitted_networks: tuple[Network, ...] = Field(
        (), description="JSON list of networks whose addresses are allowed even if they are not public, with any port."
    )
    ca_file: Path | None = Field(
        None,
        description="PEM file with certificate authorities (such as those of an intranet) to trust in addition to the "
        "public ones.",
    )
