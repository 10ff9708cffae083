"""The absolute URLs of files in responses. While access is on, they are signed, so that they need no other credentials."""

from dataclasses import dataclass

from shared.accounts.signed_urls import UrlSigning
from web.http import responses, signed_urls
from web.services import current_services


@dataclass(frozen=True, slots=True)
class FileUrls:
    """Makes the URLs of one response. ``base`` is their beginning, without a slash at the end; ``signing`` is None while access is open."""

    base: str
    signing: UrlSigning | None = None

    @property
    def are_signed(self) -> bool:
        """Whether the URLs have signatures."""
        return self.signing is not None

    def query(self, resource: str) -> str:
        """Return the query of all URLs of a resource (``shared.accounts.signed_urls``); an empty text while access is open."""
        return "" if self.signing is None else self.signing.query(resource)


def absolute() -> FileUrls:
    """Return what makes the absolute URLs in the response to the current request."""
    services = current_services()
    return FileUrls(responses.base_url(services.settings.web.public_url), _signing())


def relative() -> FileUrls:
    """Return what makes the URLs in a page of this service, which begin with a slash."""
    return FileUrls("", _signing())


def _signing() -> UrlSigning | None:
    signer = current_services().url_signer
    # Whoever has a signed URL must not get others that are valid for longer.
    return None if signer is None else signer.begin(until=signed_urls.signed_until())
