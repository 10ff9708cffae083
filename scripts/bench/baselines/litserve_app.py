"""LitServe over the same work: ``python -m scripts.bench.baselines.litserve_app PORT WORKERS``.

As its documentation has it for a CPU: its dynamic batching, a worker process for each core, as many HTTP processes as workers.
A picture is the body of ``POST /predict``. It has no telemetry to turn off.
"""

import signal
import sys
from typing import Annotated, Any

import litserve
from fastapi import Body

from scripts.bench.baselines import end_with_parent
from scripts.bench.baselines.loop import GROUP, detection
from scripts.local.embedded_servers import LOOPBACK

_FILL_S = 0.02


class Detection(litserve.LitAPI):
    """Finds things in groups of pictures."""

    def setup(self, device: str) -> None:  # noqa: ARG002 -- LitServe's signature
        """Load the model, in each worker."""
        self._work = detection()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        """Take the body as it is: FastAPI reads it by this annotation."""
        return request

    def predict(self, x: list[bytes]) -> list[Any]:
        """Decode a group and look at it."""
        return self._work(x)


def main() -> None:
    """Serve until SIGTERM."""
    end_with_parent()
    port, workers = map(int, sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # LitServe ends its processes in order on Ctrl-C only
    api = Detection(max_batch_size=GROUP, batch_timeout=_FILL_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(host=LOOPBACK, port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
