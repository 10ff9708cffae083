"""A plain HTTP client that costs little: prepared bytes go down a kept connection."""

import http.client
import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from scripts.bench.sample_uploads import Upload
from scripts.local.embedded_servers import LOOPBACK

PATH = "/upload_image_batch"
_TIMEOUT_S = 60.0


class Poster:
    """One kept connection to one server. Not for several threads at once."""

    def __init__(self, port: int) -> None:
        """Keep the address; the first post connects, if ``connect`` has not."""
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)

    def post(self, upload: Upload) -> dict[str, Any]:
        """Send an upload under a new ``Idempotency-Key`` and give the answer.

        :raises RuntimeError: it was not 202.
        """
        sent = {"Content-Type": upload.content_type, "Idempotency-Key": uuid.uuid4().hex}
        self._connection.request("POST", PATH, upload.body, sent)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 202:
            raise RuntimeError(f"POST was answered {response.status}: {answer[:300]!r}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def connect(self) -> None:
        """Connect anew: a server may have ended an idle connection by now."""
        self._connection.close()
        self._connection.connect()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Crowd:
    """Several clients that post at the same time, each on its own kept connection."""

    posters: list[Poster]

    @classmethod
    def of(cls, size: int, port: int) -> "Crowd":
        """Make ``size`` clients of the server on ``port``."""
        return cls([Poster(port) for _ in range(size)])

    def burst(self, upload: Upload, each: int) -> float:
        """Let every client post ``each`` times.

        :returns: seconds from the first byte to the last answer.
        """
        start = threading.Barrier(len(self.posters) + 1)

        def run(poster: Poster) -> None:
            poster.connect()
            start.wait(_TIMEOUT_S)
            for _ in range(each):
                poster.post(upload)

        with ThreadPoolExecutor(len(self.posters)) as threads:
            jobs = [threads.submit(run, poster) for poster in self.posters]
            start.wait(_TIMEOUT_S)
            began = time.perf_counter()
            for job in jobs:
                job.result()
            return time.perf_counter() - began

    def close(self) -> None:
        """Close all connections."""
        for poster in self.posters:
            poster.close()
