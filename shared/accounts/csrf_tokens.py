"""CSRF tokens: they show that a request with the session cookie comes from a page of this service.

A browser adds the cookie to requests that pages of other sites cause, but these pages cannot read the token, which is in the
pages of this service. A token consists of a random number, which makes all tokens of a session different, so that the sizes
of compressed pages disclose nothing of it, and of an HMAC with SHA-256 over the number and the session.
"""

import hmac
import re
import secrets
from typing import Final

from shared.accounts.signing_keys import SigningKeys

PURPOSE: Final = "shelfsight CSRF tokens 1"
"""For ``KeySet.derive``: these keys sign nothing else."""
_TOKEN: Final = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})\Z", re.ASCII)


class CsrfTokens:
    """Issues and checks CSRF tokens. A token is valid as long as its session and the key that signed it. Thread-safe."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys

    def issue(self, session_id: str) -> str:
        """Return a new token for the pages of a session."""
        keys, number = self._keys.current(), secrets.token_hex(16)
        assert keys.signing_id is not None  # noqa: S101 -- without keys, there are no sessions
        return f"{number}.{_sign(keys.derive(PURPOSE)[keys.signing_id], number, session_id)}"

    def is_valid(self, session_id: str, token: str) -> bool:
        """Return whether a token belongs to a session. It is compared in constant time."""
        parts = _TOKEN.match(token)
        if parts is None:
            return False
        keys = self._keys.current().derive(PURPOSE).values()
        matches = [hmac.compare_digest(_sign(key, parts[1], session_id), parts[2]) for key in keys]
        return any(matches)


def _sign(key: bytes, number: str, session_id: str) -> str:
    return hmac.digest(key, f"{number}\n{session_id}".encode(), "sha256").hex()
