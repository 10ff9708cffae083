"""Accept a signature in the URL of a request in place of credentials."""

import re
from typing import Final

from flask import g, request
from werkzeug.datastructures import MultiDict

from shared.accounts.signed_urls import UrlSigner
from shared.ids import DIGEST_ID_PATTERN, IMAGE_ID_PATTERN

_RESOURCE: Final = re.compile(rf"(/uploads/{IMAGE_ID_PATTERN}|/(?:pictures|inspections)/{DIGEST_ID_PATTERN})(?:[./]|\Z)")
_PARAMETERS: Final = ("signature", "expires")


def is_signed(signer: UrlSigner) -> bool:
    """Return whether the URL of the current request has one valid signature that covers its path."""
    covered = _RESOURCE.match(request.path)
    values = [request.args.getlist(name) for name in _PARAMETERS]
    if request.method not in {"GET", "HEAD"} or covered is None or any(len(texts) != 1 for texts in values):
        return False
    signature, expires = (texts[0] for texts in values)
    is_valid = signer.is_valid(covered[1], signature, expires)
    if is_valid:
        g.signed_until = int(expires)
    return is_valid


def has_signature() -> bool:
    """Return whether the URL of the current request has a parameter of a signature, valid or not."""
    return any(name in request.args for name in _PARAMETERS)


def signed_until() -> int | None:
    """Return the time in Unix seconds until which the URL of the current request is valid; None if ``is_signed`` is not true."""
    found: int | None = g.get("signed_until")
    return found


def other_parameters() -> MultiDict[str, str]:
    """Return the query of the current request without the parameters of a signature."""
    return MultiDict((name, value) for name, value in request.args.items(multi=True) if name not in _PARAMETERS)
