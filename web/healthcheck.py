"""The health check of a web container, called as ``python -m web.healthcheck``.

The exit code is 0 if the web process on this machine responds. Otherwise, the exit code is 1, and standard error has a
sentence with the reason. The check runs every few seconds. To start quickly, it imports only the standard library, and it
reads the only setting that it needs directly from the environment.
"""

import http.client
import os
import sys
from typing import Final

_LIMIT_S: Final = 3.0


def main() -> None:
    """Request ``/healthz`` once, and exit with code 1 if the response is not 200."""
    port = os.environ.get("WEB_PORT") or "5000"
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_LIMIT_S)
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"error: no web process responds at 127.0.0.1:{port}: {error}")
    if status != http.client.OK:
        sys.exit(f"error: unexpected response from 127.0.0.1:{port}/healthz: status {status}, expected 200")


if __name__ == "__main__":
    main()
