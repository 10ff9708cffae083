"""What can be wrong with a picture. The codes are stable and part of the contract."""

from typing import Final

CODES: Final = {
    "unsupported_format": "The file is in none of the supported formats.",
    "truncated": "The file ends too early.",
    "corrupt": "The file is damaged.",
    "too_many_pixels": "The picture has more pixels than the limit allows, or a side longer than a JPEG can have.",
    "empty": "The file is empty.",
    "decoder_crash": "Looking at this picture ended the process.",
    "out_of_memory": "Looking at this picture takes more memory than allowed.",
}


class VisionError(Exception):
    """A picture's own fault. ``code`` is one of ``CODES``; ``detail`` is a sentence for a client."""

    def __init__(self, code: str) -> None:
        """Take the sentence that belongs to ``code``."""
        super().__init__(code)
        self.code = code
        self.detail = CODES[code]
