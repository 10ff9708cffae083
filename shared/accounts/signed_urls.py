"""Signed URLs: whoever has one can read the files of one image until it expires, without other credentials.

A signature covers a *resource*: the beginning of the path that all files of an image have in common, such as
``/uploads/<image id>``. It is an HMAC with SHA-256 over the resource and the time at which it expires. nginx checks it in the
same way (``deploy/nginx/signed_urls.js``).
"""

import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shared.accounts.signing_keys import SigningKeys

PURPOSE: Final = "shelfsight signed URLs 1"
"""For ``KeySet.derive``: the keys of signed URLs are not those of tokens, so nginx can have them."""
_EXPIRES: Final = re.compile(r"[1-9][0-9]{0,11}\Z", re.ASCII)
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class UrlSigning:
    """Signs the URLs in one response. ``expires`` is the time at which they expire, in Unix seconds."""

    key: bytes
    expires: int

    def query(self, resource: str) -> str:
        """Return the query that a URL of a resource needs, with its question mark."""
        return f"?signature={_sign(self.key, resource, self.expires)}&expires={self.expires}"


class UrlSigner:
    """Signs URLs and checks signatures. Thread-safe.

    :param lifetime_s: how long a URL is valid at least. It is valid for up to half of it longer, because URLs that are signed
        within this half are equal, so that browsers can use a cached file.
    :param clock: returns the time in Unix seconds.
    """

    def __init__(self, keys: SigningKeys, lifetime_s: int, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._lifetime_s, self._clock = keys, lifetime_s, clock

    def begin(self, until: int | None = None) -> UrlSigning:
        """Return what signs the URLs of one response.

        :param until: the time at which the URLs expire, in Unix seconds. If None, it is chosen from the present time.
        """
        keys = self._keys.current()
        step = max(1, self._lifetime_s // 2)
        now = int(self._clock())
        assert keys.signing_id is not None  # noqa: S101 -- the settings refuse access without signing keys
        return UrlSigning(keys.derive(PURPOSE)[keys.signing_id], until or now - now % step + step + self._lifetime_s)

    def is_valid(self, resource: str, signature: str, expires: str) -> bool:
        """Return whether a signature covers a resource and has not expired. It is compared in constant time."""
        if not _EXPIRES.match(expires) or not _SIGNATURE.match(signature) or int(expires) <= self._clock():
            return False
        keys = self._keys.current().derive(PURPOSE).values()
        matches = [hmac.compare_digest(_sign(key, resource, int(expires)), signature) for key in keys]
        return any(matches)


def _sign(key: bytes, resource: str, expires: int) -> str:
    return hmac.digest(key, f"{resource}\n{expires}".encode(), "sha256").hex()
