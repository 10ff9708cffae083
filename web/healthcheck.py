"""``python -m web.healthcheck``: the health check of a web container.

The exit code is 0 if the web process of this machine answers, else 1, with a sentence on standard error. The check runs
every few seconds, so it imports nothing but the standard library, and reads the one setting that it needs itself.
"""

import http.client
import os
import sys
from typing import Final

_LIMIT_S: Final = 3.0


def main() -> None:
    """Request ``/healthz`` once."""
    port = os.environ.get("WEB_PORT") or "5000"
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_LIMIT_S)
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"error: no web process answers at 127.0.0.1:{port}: {error}")
    if status != http.client.OK:
        sys.exit(f"error: 127.0.0.1:{port}/healthz returned {status}")


if __name__ == "__main__":
    main()
