"""Faults of an image file. The codes are stable and part of the API."""

from typing import Final

CODES: Final = {
    "unsupported_format": "The file format, or this variant of it, is not supported. Send a JPEG, PNG, GIF, BMP, TIFF, WebP or AVIF file.",
    "truncated": "The file is incomplete: its end is missing. Send the whole file.",
    "corrupt": "The file is damaged and cannot be decoded. Send an intact copy.",
    "too_many_pixels": "The image has more pixels than the limit allows, or a side longer than 65500 pixels, the maximum of a JPEG. Send a smaller image.",
    "empty": "The file is empty. Send a file with content.",
    "decoder_crash": "Processing this image crashed the worker process. Convert the image to another format or send another one.",
    "out_of_memory": "Processing this image needs more memory than allowed. Send a smaller image.",
}
"""A sentence for clients, by error code."""


class VisionError(Exception):
    """The image file cannot be processed. ``code`` is a key of ``CODES``; ``detail`` is its sentence for clients."""

    def __init__(self, code: str) -> None:
        """Look up the sentence of ``code``.

        :raises KeyError: ``code`` is unknown.
        """
        super().__init__(code)
        self.code = code
        self.detail = CODES[code]
