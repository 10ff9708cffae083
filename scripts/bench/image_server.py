"""An image source for the benchmarks: ``python -m scripts.bench.image_server PORT FILE``.

The server returns the same image for every path. A comment with the path is inserted into the JPEG, so that no two URLs
return the same bytes. ``/request-count`` returns the number of image requests so far.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from scripts.bench.baselines import end_with_parent
from scripts.local.servers.ports import LOOPBACK

REQUEST_COUNT_PATH: Final = "/request-count"
_HEAD_BYTES: Final = 16384


async def serve(port: int, image: bytes) -> None:
    """Serve ``image`` at every path except ``REQUEST_COUNT_PATH`` until the process is terminated.

    Each path returns different bytes, because the path is inserted into the image as a comment. ``REQUEST_COUNT_PATH``
    returns the number of requests for images.
    """
    request_count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal request_count
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1]
                if path == REQUEST_COUNT_PATH.encode():
                    body, content_type = str(request_count).encode(), b"text/plain"
                else:
                    request_count += 1
                    body, content_type = _insert_comment(image, path), b"image/jpeg"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (content_type, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client closed the connection
        finally:
            writer.close()

    server = await asyncio.start_server(handle, LOOPBACK, port, limit=_HEAD_BYTES, backlog=512)
    async with server:
        await server.serve_forever()


def _insert_comment(jpeg: bytes, text: bytes) -> bytes:
    """Return a JPEG with ``text`` as a comment, in a segment right after the two bytes with which every JPEG begins."""
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
