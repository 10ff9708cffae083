"""Access tokens, refresh tokens and cookie tokens: JSON Web Tokens (RFC 7519) with an HMAC (HS256), for this service alone.

A token says who the user is and which session the token belongs to. It contains no rights, which are read from the database.
A program sends access tokens, which it renews with refresh tokens. A browser sends a cookie token.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import jwt

from shared.accounts.signing_keys import SigningKeys
from shared.errors import Environment, Unauthorized

ACCESS_LIFETIME_S: Final = 15 * 60
_ALGORITHM: Final = "HS256"
_ISSUER: Final = "shelfsight"
_CLAIMS: Final = ("iss", "aud", "sub", "sid", "iat", "nbf", "exp")
_MAX_SKEW_S: Final = 60
"""How much the clock of the web front that issued a token may be ahead of the clock of the one that reads it."""
_MAX_LENGTH: Final = 4096
_NO_KEYS: Final = "Nobody can sign in, because the service has no signing keys; the operator must set SIGNING_KEYS."


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of token. A token of one kind is never accepted as one of another: both ``aud`` and ``typ`` differ."""

    audience: str
    header_type: str
    refusal: str


_ACCESS: Final = _Kind("shelfsight:access", "access+jwt", "The access token is invalid or has expired; get another one with POST /refresh, or sign in.")
_REFRESH: Final = _Kind("shelfsight:refresh", "refresh+jwt", "The refresh token is invalid or has expired; sign in again.")
_COOKIE: Final = _Kind("shelfsight:cookie", "cookie+jwt", "The session cookie is invalid or has expired; sign in again.")


@dataclass(frozen=True, slots=True)
class SessionClaims:
    """What a valid access token or cookie token says."""

    user_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a valid refresh token says. ``generation`` tells the tokens of a session apart: each is used only once."""

    user_id: str
    session_id: str
    generation: int


class TokenSigner:
    """Issues and reads tokens. Thread-safe.

    :param keys: a token that was signed with any of these keys is valid.
    :param clock: returns the time in Unix seconds.
    :raises ValueError: when a key is shorter than 32 bytes (RFC 7518), or is a public key or a JWK.
    """

    def __init__(self, keys: SigningKeys, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._clock = keys, clock
        # PyJWT reads the system clock and would apply one tolerance to all times, so ``_is_current`` checks them.
        self._jwt = jwt.PyJWT(
            {
                "require": list(_CLAIMS),
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "strict_aud": True,
                "enforce_minimum_key_length": True,
            }
        )
        for key_id, key in keys.current().secrets.items():
            try:
                self._jwt.encode({}, key, _ALGORITHM)
            except jwt.InvalidKeyError:
                raise ValueError(f"The signing key {key_id} cannot be used; use at least 32 random bytes.") from None

    def issue_access(self, user_id: str, session_id: str) -> tuple[str, int]:
        """Return a new access token, and its lifetime in seconds.

        :raises Environment: when there are no signing keys (``signing_keys_missing``).
        """
        now = int(self._clock())
        return self._issue(_ACCESS, {"sub": user_id, "sid": session_id}, now, now + ACCESS_LIFETIME_S), ACCESS_LIFETIME_S

    def issue_refresh(self, user_id: str, session_id: str, generation: int, expires_at: float) -> str:
        """Return a new refresh token that expires at ``expires_at`` (Unix seconds; a fraction is cut off).

        :raises Environment: when there are no signing keys (``signing_keys_missing``).
        """
        claims = {"sub": user_id, "sid": session_id, "gen": generation}
        return self._issue(_REFRESH, claims, int(self._clock()), int(expires_at))

    def issue_cookie(self, user_id: str, session_id: str, expires_at: float) -> str:
        """Return a new cookie token that expires at ``expires_at`` (Unix seconds; a fraction is cut off).

        :raises Environment: when there are no signing keys (``signing_keys_missing``).
        """
        return self._issue(_COOKIE, {"sub": user_id, "sid": session_id}, int(self._clock()), int(expires_at))

    def read_access(self, token: str) -> SessionClaims:
        """Return what an access token says.

        :raises Unauthorized: when the token is not a valid access token.
        """
        claims = self._read(_ACCESS, token)
        return SessionClaims(claims["sub"], claims["sid"])

    def read_cookie(self, token: str) -> SessionClaims:
        """Return what a cookie token says.

        :raises Unauthorized: when the token is not a valid cookie token.
        """
        claims = self._read(_COOKIE, token)
        return SessionClaims(claims["sub"], claims["sid"])

    def read_refresh(self, token: str) -> RefreshClaims:
        """Return what a refresh token says.

        :raises Unauthorized: when the token is not a valid refresh token.
        """
        claims = self._read(_REFRESH, token)
        generation = claims.get("gen")
        if type(generation) is not int:
            raise Unauthorized(_REFRESH.refusal)
        return RefreshClaims(claims["sub"], claims["sid"], generation)

    def _issue(self, kind: _Kind, claims: dict[str, Any], now: int, expires_at: int) -> str:
        keys = self._keys.current()
        if keys.signing_id is None:
            raise Environment(_NO_KEYS, code="signing_keys_missing")
        payload = {"iss": _ISSUER, "aud": kind.audience, **claims, "iat": now, "nbf": now, "exp": expires_at}
        return self._jwt.encode(payload, keys.secrets[keys.signing_id], _ALGORITHM, headers={"typ": kind.header_type, "kid": keys.signing_id})

    def _read(self, kind: _Kind, token: str) -> dict[str, Any]:
        """Return the claims of a valid token. ``sub`` and ``sid`` are texts, and ``exp`` is an integer.

        :raises Unauthorized: when the token is not valid, or is not of this kind.
        """
        if len(token) > _MAX_LENGTH or not token.isascii():
            raise Unauthorized(kind.refusal)
        try:
            header = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            key = None if key_id is None else self._keys.current().secrets.get(key_id)
            # No other member is allowed, such as one that names an algorithm, a key, or an extension (RFC 8725, 3.1 and 3.10).
            if key is None or header != {"alg": _ALGORITHM, "typ": kind.header_type, "kid": key_id}:
                raise Unauthorized(kind.refusal)
            claims: dict[str, Any] = self._jwt.decode(token, key, [_ALGORITHM], audience=kind.audience, issuer=_ISSUER)
        except jwt.PyJWTError:
            raise Unauthorized(kind.refusal) from None
        if type(claims["sid"]) is not str or not self._is_current(claims):
            raise Unauthorized(kind.refusal)
        return claims

    def _is_current(self, claims: dict[str, Any]) -> bool:
        issued_at, not_before, expires_at = (claims[name] for name in ("iat", "nbf", "exp"))
        if not type(issued_at) is type(not_before) is type(expires_at) is int:
            return False
        now = self._clock()
        return bool(max(issued_at, not_before) <= now + _MAX_SKEW_S and now < expires_at)
