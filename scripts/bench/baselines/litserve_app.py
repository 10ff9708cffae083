"""Serve the service's model with LitServe: ``python -m scripts.bench.baselines.litserve_app PORT WORKERS``.

LitServe is set up as its documentation recommends for a CPU: with its dynamic batching, one worker process per core,
and as many HTTP processes as workers. The body of ``POST /predict`` is an image. LitServe has no telemetry that must be
turned off.
"""

import signal
import sys
from typing import Annotated, Any

import litserve
from fastapi import Body

from scripts.bench.baselines import end_with_parent
from scripts.bench.baselines.loop import BATCH_SIZE, create_detection
from scripts.local.servers.ports import LOOPBACK

_BATCH_TIMEOUT_S = 0.02


class Detection(litserve.LitAPI):
    """Detects objects in batches of images."""

    def setup(self, device: str) -> None:  # noqa: ARG002 -- LitServe defines this signature
        """Load the model. LitServe calls this method in each worker."""
        self._process = create_detection()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        """Return the request's body unchanged.

        The parameter ``request`` already holds the body, because its annotation makes FastAPI read the body.
        """
        return request

    def predict(self, x: list[bytes]) -> list[Any]:
        """Decode a batch of images and detect objects in them."""
        return self._process(x)


def main() -> None:
    """Serve until SIGTERM."""
    end_with_parent()
    port, workers = map(int, sys.argv[1:])
    # LitServe stops its processes cleanly only on Ctrl-C, so SIGTERM is handled in the same way.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    api = Detection(max_batch_size=BATCH_SIZE, batch_timeout=_BATCH_TIMEOUT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(host=LOOPBACK, port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
