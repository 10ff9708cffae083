"""An HTTP client with little overhead: it sends prepared bodies over a persistent connection."""

import http.client
import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from scripts.bench.sample_uploads import Upload
from scripts.local.servers.ports import LOOPBACK

PATH = "/upload_image_batch"
_TIMEOUT_S = 60.0


class UploadClient:
    """A persistent connection to one server; not thread-safe.

    The first ``post`` connects unless ``connect`` was called before.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)

    def post(self, upload: Upload) -> dict[str, Any]:
        """Send an upload with a new ``Idempotency-Key``, and return the JSON response.

        :raises RuntimeError: when the status of the response is not 202.
        """
        headers = {"Content-Type": upload.content_type, "Idempotency-Key": uuid.uuid4().hex}
        self._connection.request("POST", PATH, upload.body, headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 202:
            raise RuntimeError(f"Unexpected response to POST: status {response.status}, expected 202: {body[:300]!r}")
        accepted: dict[str, Any] = json.loads(body)
        return accepted

    def connect(self) -> None:
        """Open a new connection to the server, because the server may have closed the previous one as idle."""
        self._connection.close()
        self._connection.connect()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class ClientGroup:
    """Several clients that post at the same time, each over its own persistent connection."""

    clients: list[UploadClient]

    @classmethod
    def create(cls, size: int, port: int) -> "ClientGroup":
        """Create ``size`` clients for the server on ``port``."""
        return cls([UploadClient(port) for _ in range(size)])

    def burst(self, upload: Upload, each: int) -> float:
        """Post ``upload`` ``each`` times with every client; all clients post at the same time.

        :returns: seconds from the start of the first request to the end of the last response.
        """
        start = threading.Barrier(len(self.clients) + 1)

        def run(client: UploadClient) -> None:
            client.connect()
            start.wait(_TIMEOUT_S)
            for _ in range(each):
                client.post(upload)

        with ThreadPoolExecutor(len(self.clients)) as threads:
            jobs = [threads.submit(run, client) for client in self.clients]
            start.wait(_TIMEOUT_S)
            started = time.perf_counter()
            for job in jobs:
                job.result()
            return time.perf_counter() - started

    def close(self) -> None:
        """Close all connections."""
        for client in self.clients:
            client.close()
