"""An upload over a slow line."""

import asyncio
import base64
import json
from typing import Final
from urllib.parse import urlsplit

from tests.faults.images import UploadImage

_CHUNKS: Final = 30
_RESPONSE_TIMEOUT_S: Final = 60


async def upload_slowly(url: str, picture: UploadImage, seconds: float) -> int:
    """Upload one picture in pieces, over so many seconds; give the status of the answer, 0 when there was none."""
    at = urlsplit(url)
    image = {"timestamp": 1_700_000_000, "store_name": "slow", "camera_id": 1, "file": base64.b64encode(picture.data).decode()}
    body = json.dumps([image]).encode()
    reader, writer = await asyncio.open_connection(at.hostname, at.port or 80)
    head = f"POST /upload_image_batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    try:
        writer.write(head.encode())
        step = -(-len(body) // _CHUNKS)
        for begin in range(0, len(body), step):
            writer.write(body[begin : begin + step])
            await writer.drain()
            await asyncio.sleep(seconds / _CHUNKS)
        line = await asyncio.wait_for(reader.readline(), _RESPONSE_TIMEOUT_S)
    except ConnectionError:
        return 0
    finally:
        writer.close()
    return int(line.split()[1]) if line else 0
