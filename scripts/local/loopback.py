"""Requests to the service on this machine."""

import urllib.request
from http.client import HTTPResponse


def open_url(url: str, timeout_s: float) -> HTTPResponse:
    """Send a ``GET`` request directly, even if the environment names a proxy (``http_proxy``).

    A proxy would look for the service on its own machine.

    :param url: an http URL on loopback.
    :raises urllib.error.HTTPError: when the status is 400 or more.
    :raises OSError: when nothing responds in time.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    response: HTTPResponse = opener.open(url, timeout=timeout_s)
    return response
