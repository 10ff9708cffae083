"""Ray Serve over the same work: ``python -m scripts.bench.baselines.ray_app PORT``.

As its documentation has it: its dynamic batching, a replica for each core, what blocks in a thread beside the replica's event
loop, the throughput mode (set by ``scripts.bench.model_server_rates``). Not its HAProxy, which listens on all interfaces. A picture is the body of
``POST /predict``.
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
from scripts.bench.baselines.loop import GROUP, PROCESSES, detection
from scripts.local.embedded_servers import LOOPBACK

_FILL_S = 0.02
_STORE_BYTES = 200_000_000


class Detection:
    """Finds things in groups of pictures."""

    def __init__(self) -> None:
        """Load the model, in each replica."""
        _stay_on_loopback()
        self._work = detection()

    @serve.batch(max_batch_size=GROUP, batch_wait_timeout_s=_FILL_S)
    async def look(self, pictures: list[bytes]) -> list[Any]:
        """Decode a group and look at it; one group at a time."""
        return await asyncio.to_thread(self._work, pictures)

    async def __call__(self, request: Request) -> Any:
        """Answer one request."""
        return await self.look(await request.body())


def _stay_on_loopback() -> None:
    """Let the replica's inner gRPC server, begun after this, listen on loopback only: its address cannot be set."""
    from ray.serve._private import replica  # noqa: PLC0415 -- in the replica only

    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, _address: add_port(server, f"{LOOPBACK}:0")


def main() -> None:
    """Serve until SIGTERM."""
    end_with_parent()
    port = int(sys.argv[1])
    deployment = serve.deployment(
        Detection, num_replicas=PROCESSES, max_ongoing_requests=4 * GROUP, ray_actor_options={"num_cpus": 1}
    )
    with tempfile.TemporaryDirectory(prefix="shelfsight-ray-") as folder:  # short: sockets are in it
        ray.init(
            num_cpus=PROCESSES,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=_STORE_BYTES,
            _node_ip_address=LOOPBACK,
            _temp_dir=folder,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has put its own there, which ends at once
        try:
            serve.start(http_options={"host": LOOPBACK, "port": port})
            serve.run(deployment.bind(), route_prefix="/predict")
            print(READY, flush=True)  # all replicas are
            signal.pause()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
