"""The form of API keys: ``sfs_<id>_<secret><crc32>``.

===========  =======================================================================================================
``id``       16 lowercase letters and digits; finds the key in the database, and is shown in lists
``secret``   43 letters and digits (256 bits)
``crc32``    8 hexadecimal digits: the CRC-32 of everything before it
===========  =======================================================================================================

The CRC proves nothing, because anyone can compute it. It makes sure that a mistyped, truncated or invented key is refused
without a read from the database. The prefix lets scanners for leaked secrets find keys.

The database keeps the SHA-256 digest of a key. A digest without salt and without many rounds is enough for a secret of 256
random bits, which cannot be guessed.
"""

import re
import secrets
import string
from binascii import crc32
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

PREFIX: Final = "sfs_"
_ID_CHARACTERS: Final = string.digits + string.ascii_lowercase
_ID_LENGTH: Final = 16
_SECRET_CHARACTERS: Final = string.digits + string.ascii_letters
_SECRET_LENGTH: Final = 43
_CRC_LENGTH: Final = 8
_KEY_ID: Final = re.compile(f"[0-9a-z]{{{_ID_LENGTH}}}")
_KEY: Final = re.compile(
    f"{PREFIX}(?P<id>[0-9a-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}(?P<crc>[0-9a-f]{{{_CRC_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new API key. ``text`` is the key itself, which is shown only once; ``digest`` is what is stored."""

    id: str
    text: str = field(repr=False)
    digest: str


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """The id and the digest of a text that has the form of an API key.

    Compare the digest with the stored one in constant time (``hmac.compare_digest``).
    """

    id: str
    digest: str


def generate() -> NewKey:
    """Return a new random API key."""
    key_id = _choose(_ID_CHARACTERS, _ID_LENGTH)
    start = f"{display_prefix(key_id)}_{_choose(_SECRET_CHARACTERS, _SECRET_LENGTH)}"
    text = start + _checksum(start)
    return NewKey(key_id, text, _digest(text))


def parse(text: str) -> ParsedKey | None:
    """Return the id and the digest of an API key, or None if the form or the checksum of the text is wrong."""
    match = _KEY.fullmatch(text)
    if match is None or match["crc"] != _checksum(text[:-_CRC_LENGTH]):
        return None
    return ParsedKey(match["id"], _digest(text))


def display_prefix(key_id: str) -> str:
    """Return the beginning of a key, which is shown in lists: ``sfs_<id>``."""
    return PREFIX + key_id


def _choose(characters: str, length: int) -> str:
    return "".join(secrets.choice(characters) for _ in range(length))


def _checksum(text: str) -> str:
    return f"{crc32(text.encode()):0{_CRC_LENGTH}x}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def is_key_id(text: str) -> bool:
    """Return whether a text has the form of the id of an API key."""
    return _KEY_ID.fullmatch(text) is not None
