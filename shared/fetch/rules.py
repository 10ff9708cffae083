"""The limits and lists that fetching keeps to, as plain values.

``shared.settings.Fetch`` adds the environment variables ``FETCH_...`` to this model. The fetch package itself reads no
environment and does not import the settings.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from shared.fetch.addresses import Network


class FetchRules(BaseModel):
    """Limits of one process and lists of hosts and networks.

    Domains and hosts are in the spelling that ``urls`` returns: lower-case ASCII without a trailing dot.
    """

    model_config = ConfigDict(frozen=True)
    resolve_s: float = Field(3.0, gt=0)
    connect_s: float = Field(5.0, gt=0, description="Over all addresses that are tried, TLS included.")
    first_byte_s: float = Field(10.0, gt=0, description="From the request to the end of the answer's headers.")
    whole_s: float = Field(20.0, gt=0, description="Everything, redirects included.")
    max_redirects: int = Field(3, ge=0, le=10)
    max_header_bytes: int = Field(32 * 1024, gt=0, description="Of one answer, interim ones included.")
    max_at_once: int = Field(32, gt=0, description="Fetches in a process; more are 429.")
    max_per_source: int = Field(4, gt=0, description="Of these from one host, and from one address.")
    blocked_domains: tuple[str, ...] = Field(
        (), description="JSON list; what is below them is blocked, too. Beats all other lists."
    )
    allowed_domains: tuple[str, ...] = Field(
        (), description="JSON list; if there are any, nothing else is fetched from."
    )
    permitted_hosts: tuple[str, ...] = Field(
        (), description="JSON list of names that may lead to any address, with any port."
    )
    blocked_networks: tuple[Network, ...] = Field(
        (), description="JSON list: public addresses that are this network's own."
    )
    permitted_networks: tuple[Network, ...] = Field(
        (), description="JSON list: addresses that need not be public, with any port."
    )
    ca_file: Path | None = Field(
        None, description="PEM of authorities that are believed besides the public ones: an intranet's."
    )
