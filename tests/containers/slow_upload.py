"""An upload over a slow connection."""

import asyncio
import base64
import json
from typing import Final
from urllib.parse import urlsplit

from tests.faults.images import UploadImage

_CHUNKS: Final = 30
_RESPONSE_TIMEOUT_S: Final = 60


async def upload_slowly(url: str, image: UploadImage, seconds: float) -> int:
    """Upload one image in chunks over ``seconds`` seconds. Return the status code, or 0 when there is no response."""
    address = urlsplit(url)
    entry = {"timestamp": 1_700_000_000, "store_name": "slow", "camera_id": 1, "file": base64.b64encode(image.data).decode()}
    body = json.dumps([entry]).encode()
    reader, writer = await asyncio.open_connection(address.hostname, address.port or 80)
    head = f"POST /upload_image_batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    try:
        writer.write(head.encode())
        chunk_size = -(-len(body) // _CHUNKS)
        for begin in range(0, len(body), chunk_size):
            writer.write(body[begin : begin + chunk_size])
            await writer.drain()
            await asyncio.sleep(seconds / _CHUNKS)
        status_line = await asyncio.wait_for(reader.readline(), _RESPONSE_TIMEOUT_S)
    except ConnectionError:
        return 0
    finally:
        writer.close()
    return int(status_line.split()[1]) if status_line else 0
