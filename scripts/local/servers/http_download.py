"""Download a file by HTTP, with limits on its size and on every wait."""

import contextlib
import hashlib
import os
import queue
import threading
import time
from pathlib import Path
from typing import Final

import httpx

from scripts.local.servers.errors import Unusable
from scripts.local.servers.progress import Progress

_CONNECT_S: Final = 3.0
_STALL_S: Final = 20.0
_ANSWER_S: Final = 6.0
"""Time limit in seconds for the response to begin. It includes the search for the address, which has no limit of its own."""
_WHOLE_S: Final = 900.0
_MAX_BYTES: Final = 512 << 20


def receive(url: str, path: Path, show: Progress) -> str:
    """Download a file, and return its sha256 in hexadecimal digits.

    :raises Unusable: when it cannot be downloaded in the limits of time and size. ``path`` may then hold a part of it.
    :raises OSError: when ``path`` cannot be written.
    """
    try:
        return _receive(url, path, show)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:  # the last two: an unsupported proxy in the environment
        raise Unusable(str(error) or type(error).__name__) from error


def _receive(url: str, path: Path, show: Progress) -> str:
    until = time.monotonic() + _WHOLE_S
    hasher, received = hashlib.sha256(), 0
    timeouts = httpx.Timeout(_STALL_S, connect=_CONNECT_S)
    with httpx.Client(timeout=timeouts, follow_redirects=True, max_redirects=5) as client, contextlib.closing(_open(client, url)) as response, path.open("wb") as file:
        if response.status_code != httpx.codes.OK:
            raise Unusable(f"the response was {response.status_code}")
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else 0
        for chunk in response.iter_raw():
            received += len(chunk)
            if max(received, total) > _MAX_BYTES:
                raise Unusable(f"the file is larger than {_MAX_BYTES >> 20} MB")
            if time.monotonic() > until:
                raise Unusable(f"it took longer than {_WHOLE_S:.0f} s")
            hasher.update(chunk)
            file.write(chunk)
            show(received, total)
        os.fsync(file.fileno())
    return hasher.hexdigest()


def _open(client: httpx.Client, url: str) -> httpx.Response:
    """Send a request, and return its response, whose body has not been read.

    The request is sent in another thread, because looking up the address of a name has no time limit.
    """
    answers: queue.SimpleQueue[httpx.Response | Exception] = queue.SimpleQueue()

    def send() -> None:
        try:
            answers.put(client.send(client.build_request("GET", url), stream=True))
        except Exception as error:  # noqa: BLE001 -- raised again in the thread that waits
            answers.put(error)

    threading.Thread(target=send, name="mongod-download", daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_S)
    except queue.Empty:
        raise Unusable(f"no response within {_ANSWER_S:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
