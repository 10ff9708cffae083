"""Compare the body of a request with its ``Content-Digest`` header (RFC 9530).

The digests are those of the content as it is sent: without the transfer coding, and before a content coding such as gzip
is undone.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Final

from shared.errors import BadRequest, FieldError, Invalid
from web.http.body_limits import Readable

_ALGORITHMS: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
"""The algorithms that RFC 9530 regards as secure. Digests of other algorithms are ignored."""
_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_ITEM: Final = (
    r'(?:"(?:[ !#-\[\]-~]|\\["\\])*"'  # a string
    r"|:[A-Za-z0-9+/=]*:"  # a byte sequence
    r"|\?[01]"  # a boolean
    r"|-?[0-9]{1,15}(?:\.[0-9]{1,3})?"  # a number
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*)"  # a token
)
_MEMBER: Final = re.compile(
    rf"({_KEY})=:([A-Za-z0-9+/]*={{0,2}}):(?:; *{_KEY}(?:={_ITEM})?)*(?:[ \t]*,[ \t]*(?!\Z)|\Z)"
)
"""A member of a dictionary whose value is a byte sequence (RFC 9651, 3.2 and 3.3.5), with its parameters and the comma
before the next member. RFC 9530 defines no parameters, so they are ignored."""


def parse_content_digest(field: str) -> dict[str, bytes]:
    """Return the digest of each algorithm that a ``Content-Digest`` header names.

    :raises BadRequest: when the header is not a dictionary of byte sequences.
    """
    field = field.strip(" ")
    digests: dict[str, bytes] = {}
    position = 0
    while position < len(field):
        member = _MEMBER.match(field, position)
        if member is None:
            raise _malformed()
        name, text = member.groups()
        try:
            digests[name] = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError:
            raise _malformed() from None
        position = member.end()
    return digests


class DigestingStream:
    """The stream of a body. It computes the digests of the bytes that are read from it."""

    def __init__(self, stream: Readable, expected: Mapping[str, bytes]) -> None:
        """Wrap ``stream``.

        :param expected: the digests of the whole body by the name of the algorithm.
        """
        self._stream, self._expected = stream, expected
        self._hashes = {name: _ALGORITHMS[name]() for name in expected if name in _ALGORITHMS}

    def read(self, size: int, /) -> bytes:
        """Return the next bytes of the wrapped stream."""
        data = self._stream.read(size)
        for computed in self._hashes.values():
            computed.update(data)
        return data

    def check(self) -> None:
        """Compare the digests. Call this method after the whole body has been read.

        :raises Invalid: when a digest differs (``digest_mismatch``).
        """
        for name, computed in self._hashes.items():
            if computed.digest() != self._expected[name]:
                detail = f"The {name} digest of the body differs from the Content-Digest header, so the body was changed on its way, or the header is wrong; send the request again."
                raise Invalid(
                    detail, code="digest_mismatch", errors=[FieldError("/Content-Digest", "digest_mismatch", detail)]
                )


def _malformed() -> BadRequest:
    return BadRequest(
        "The Content-Digest header is malformed; send a name and the base64 text of a digest, such as sha-256=:...:."
    )
