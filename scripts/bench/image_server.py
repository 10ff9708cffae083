"""``python -m scripts.bench.image_server PORT FILE``: somebody else's server, with one picture under any address, each time with other bytes.

A comment that names the address is put into the JPEG, so that no two addresses have the same file. ``/asked`` gives how often it was asked.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from scripts.bench.baselines import end_with_parent
from scripts.local.embedded_servers import LOOPBACK

ASKED: Final = "/asked"
_HEAD_BYTES: Final = 16384


async def serve(port: int, picture: bytes) -> None:
    """Answer until ended."""
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1]
                if path == ASKED.encode():
                    body, kind = str(asked).encode(), b"text/plain"
                else:
                    asked += 1
                    body, kind = _marked(picture, path), b"image/jpeg"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has what it wanted
        finally:
            writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, port, limit=_HEAD_BYTES, backlog=512)
    async with server:
        await server.serve_forever()


def _marked(jpeg: bytes, text: bytes) -> bytes:
    """Put a comment behind a JPEG's first two bytes."""
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
