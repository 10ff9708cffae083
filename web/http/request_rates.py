"""Limit how many requests a client makes while access is on: an API key, a user, or an address without valid credentials.

Which quota a route counts against is part of its access rule. Requests without valid credentials have quotas of their own,
and credentials are checked first. So no client can use up the quota of others who have the same address and valid
credentials, such as the cameras of a store. Whether these credentials permit the request is checked afterwards, so requests
that are refused with 403 count, too. Requests from pages of other sites are refused before their credentials are checked, so
they count against the quota of the address.
"""

from dataclasses import dataclass
from typing import Final

from flask import Flask, Response, g, request

from shared.accounts.permissions import SIGNED, Principal
from shared.errors import Forbidden, ShelfsightError, Unauthorized
from shared.fetch.addresses import client_key
from shared.settings import Rates
from web.http import problems, rate_limit_headers, upload_checks
from web.http.access_rules import AccessRule
from web.http.rate_limits import QuotaPolicy, RateExceeded, RateLimiter

_WINDOW_S: Final = 60


def install(app: Flask, limiter: RateLimiter, rates: Rates) -> None:
    """Count the requests of each client before they are handled.

    Call this function after ``authentication.install``, and before ``authentication.install_enforcement``.
    """
    quotas = _Quotas(limiter, rates)
    app.before_request(quotas.count_request)
    app.register_error_handler(Unauthorized, quotas.refuse_credentials)
    app.register_error_handler(Forbidden, quotas.refuse_uncounted)


class _Quotas:
    def __init__(self, limiter: RateLimiter, rates: Rates) -> None:
        self._limiter = limiter
        self._of_keys = _policy("key", rates.requests_per_minute)
        self._of_users = _policy("user", rates.requests_per_minute)
        self._of_uploads = _policy("uploads", rates.uploads_per_minute)
        self._of_addresses = _policy("address", rates.address_per_minute)
        self._of_failures = _policy("unauthorized", rates.address_per_minute)

    def count_request(self) -> None:
        """Count the current request. A check of an upload only reads the count, because the upload itself is counted.

        :raises RateExceeded: when this would exceed a quota.
        """
        quota = self._find_quota()
        if upload_checks.is_check():
            if quota is not None:
                self._limiter.require_room(quota.policy, quota.subject, reason=quota.reason)
            return
        g.is_counted = True
        if quota is not None:
            self._count(quota)

    def refuse_credentials(self, error: Unauthorized) -> Response:
        """Return the response for missing or invalid credentials: 401, or 429 after too many of them from the same address."""
        rule: AccessRule = g.access_rule
        is_counted = "principal" in g or rate_limit_headers.has_usage()
        if rule.counts_as is None or is_counted:
            return problems.problem(error)
        reason = "Your client address has sent too many requests without valid credentials"
        return self._count_refusal(error, _quota(self._of_failures, _client(), reason))

    def refuse_uncounted(self, error: Forbidden) -> Response:
        """Return the response for a forbidden request: 403, or 429 after too many that were refused before they were counted."""
        if "is_counted" in g:
            return problems.problem(error)
        if "principal" in g:  # a check of an upload
            return self._count_refusal(error, self._find_quota())
        reason = "Your client address has sent too many requests from pages of other sites"
        return self._count_refusal(error, _quota(self._of_addresses, _client(), reason))

    def _find_quota(self) -> "_Quota | None":
        """Return the quota that the current request counts against, if there is one."""
        rule: AccessRule = g.access_rule
        principal: Principal | None = g.get("principal")
        if rule.counts_as is None or principal == SIGNED:
            return None
        if principal is not None:
            policy = self._of_uploads if rule.counts_as == "uploads" else self._of_users if principal.key is None else self._of_keys
            return _quota(policy, principal.actor, "These credentials have been used for too many requests")
        if rule.counts_as == "failures":
            return None
        return _quota(self._of_addresses, _client(), "Your client address has made too many requests without credentials")

    def _count_refusal(self, error: ShelfsightError, quota: "_Quota | None") -> Response:
        try:
            if quota is not None:
                self._count(quota)
        except RateExceeded as exceeded:
            return rate_limit_headers.refuse(exceeded)
        return problems.problem(error)

    def _count(self, quota: "_Quota") -> None:
        rate_limit_headers.show(self._limiter.require(quota.policy, quota.subject, reason=quota.reason))


@dataclass(frozen=True, slots=True)
class _Quota:
    """What a request counts against, and why it is refused when this is used up: a sentence without its full stop."""

    policy: QuotaPolicy
    subject: str
    reason: str


def _quota(policy: QuotaPolicy | None, subject: str, reason: str) -> _Quota | None:
    return None if policy is None else _Quota(policy, subject, reason)


def _policy(name: str, per_minute: int) -> QuotaPolicy | None:
    return QuotaPolicy(name, per_minute, _WINDOW_S) if per_minute else None


def _client() -> str:
    return client_key(request.remote_addr or "")
