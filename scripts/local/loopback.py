"""Requests to the service on this machine."""

import urllib.request
from http.client import HTTPResponse


def open_url(url: str, timeout_s: float, api_key: str | None = None) -> HTTPResponse:
    """Send a ``GET`` request directly, even if the environment names a proxy (``http_proxy``).

    A proxy would look for the service on its own machine.

    :param url: an http URL on loopback.
    :param api_key: the key to send, if the service requires one.
    :raises urllib.error.HTTPError: when the status is 400 or more.
    :raises OSError: when nothing responds in time.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {api_key}"} if api_key else {})  # noqa: S310 -- the caller passes an http URL
    response: HTTPResponse = opener.open(request, timeout=timeout_s)
    return response
