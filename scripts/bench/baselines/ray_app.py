"""Serve the service's model with Ray Serve: ``python -m scripts.bench.baselines.ray_app PORT``.

Ray Serve is set up as its documentation recommends: with its dynamic batching, one replica per core, blocking calls
outside the thread of the replica's event loop, and the throughput mode (set by ``scripts.bench.model_server_rates``).
HAProxy, which comes with Ray Serve, is not used, because it listens on all interfaces. The body of ``POST /predict`` is
an image.
"""

import asyncio
import signal
import sys
import tempfile
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from scripts.bench.baselines import READY, end_with_parent
from scripts.bench.baselines.loop import BATCH_SIZE, PROCESSES, create_detection
from scripts.local.servers.ports import LOOPBACK

_BATCH_TIMEOUT_S = 0.02
_OBJECT_STORE_BYTES = 200_000_000


class Detection:
    """Detects objects in batches of images; each replica loads the model."""

    def __init__(self) -> None:
        _stay_on_loopback()
        self._process = create_detection()

    @serve.batch(max_batch_size=BATCH_SIZE, batch_wait_timeout_s=_BATCH_TIMEOUT_S)
    async def detect(self, images: list[bytes]) -> list[Any]:
        """Decode a batch of images and detect objects in them.

        Callers pass a single image, and Ray Serve combines the images of concurrent calls into a batch.
        """
        return await asyncio.to_thread(self._process, images)

    async def __call__(self, request: Request) -> Any:
        """Respond with the detections in the image."""
        return await self.detect(await request.body())


def _stay_on_loopback() -> None:
    """Make the replica's internal gRPC server listen only on loopback.

    This function must be called before the gRPC server starts. It replaces a function of Ray, because Ray has no
    setting for the address of this server.
    """
    from ray.serve._private import replica  # noqa: PLC0415 -- needed only in the replica

    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, _address: add_port(server, f"{LOOPBACK}:0")


def main() -> None:
    """Serve until SIGTERM."""
    end_with_parent()
    port = int(sys.argv[1])
    deployment = serve.deployment(
        Detection, num_replicas=PROCESSES, max_ongoing_requests=4 * BATCH_SIZE, ray_actor_options={"num_cpus": 1}
    )
    with tempfile.TemporaryDirectory(prefix="shelfsight-ray-") as folder:  # the path must be short, because the folder contains sockets
        ray.init(
            num_cpus=PROCESSES,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address=LOOPBACK,
            _temp_dir=folder,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # replaces Ray's handler, which exits immediately
        try:
            serve.start(http_options={"host": LOOPBACK, "port": port})
            serve.run(deployment.bind(), route_prefix="/predict")
            print(READY, flush=True)  # serve.run returns when all replicas are ready
            signal.pause()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
