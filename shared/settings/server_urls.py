"""What the URLs of MongoDB and Redis say about who can use these servers."""

import re
from typing import Final

from shared.settings.values import is_loopback

_PARTS: Final = re.compile(r"(?P<scheme>[a-z+]+)://(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^/?#]*)[^?#]*(?:\?(?P<options>.*))?", re.IGNORECASE | re.DOTALL)
_OTHER_CREDENTIALS: Final = re.compile(r"(?:^|&)(?:authMechanism=(?!SCRAM)|tlsCertificateKeyFile=.|ssl_certfile=.|password=.)", re.IGNORECASE)
"""Options of a URL with credentials other than a password before the host."""


def is_open_to_others(url: str) -> bool:
    """Return whether a URL names a server on another machine, and contains no credentials for it."""
    parts = _PARTS.match(url)
    if parts is None or _OTHER_CREDENTIALS.search(parts["options"] or ""):
        return False
    password = (parts["user"] or "").partition(":")[2]
    return not password and any(not _is_local(host) for host in parts["hosts"].split(","))


def _is_local(host_and_port: str) -> bool:
    """Return whether a host of a URL, with or without a port, is this machine. An empty one, or a socket, is."""
    host = host_and_port[1:].partition("]")[0] if host_and_port.startswith("[") else host_and_port.partition(":")[0]
    return not host or host.startswith("%2F") or is_loopback(host)
