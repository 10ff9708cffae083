"""Error codes for image files that cannot be processed. The codes are part of the API and do not change."""

from typing import Final

CODES: Final = {
    "unsupported_format": "The file format, or this variant of the format, is not supported. Send a JPEG, PNG, GIF, BMP, TIFF, WebP or AVIF file.",
    "truncated": "The file is incomplete because its end is missing. Send the whole file.",
    "corrupt": "The file is damaged and cannot be decoded. Send an intact copy.",
    "too_many_pixels": "The image has more pixels than the limit allows, or one of its sides is longer than 65,500 pixels, the maximum for the JPEG files that the service writes. Send a smaller image.",
    "empty": "The file is empty. Send a file with content.",
    "decoder_crash": "Processing this image crashed the decoder, or did not end. Convert the image to another format, or send another image.",
    "out_of_memory": "Processing this image needs more memory than allowed. Send a smaller image.",
}
"""For each error code, the sentence that clients receive."""


class VisionError(Exception):
    """Raised if an image file cannot be processed.

    ``code`` is a key of ``CODES``, and ``detail`` is the sentence for clients that belongs to the code.
    """

    def __init__(self, code: str) -> None:
        """Look up the sentence for ``code``.

        :raises KeyError: ``code`` is unknown.
        """
        super().__init__(code)
        self.code = code
        self.detail = CODES[code]
