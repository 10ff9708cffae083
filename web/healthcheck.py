"""``python -m web.healthcheck``: see whether the front of this machine answers, for the health check of a container.

Exit code 0 is yes; 1 comes with a sentence on standard error. It runs every few seconds, so it imports nothing but the standard
library and reads the one setting that it needs by itself.
"""

import http.client
import os
import sys
from typing import Final

_LIMIT_S: Final = 3.0


def main() -> None:
    """Ask ``/healthz`` once."""
    port = os.environ.get("WEB_PORT") or "5000"
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_LIMIT_S)
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"error: nobody answers at 127.0.0.1:{port}: {error}")
    if status != http.client.OK:
        sys.exit(f"error: 127.0.0.1:{port}/healthz says {status}")


if __name__ == "__main__":
    main()
