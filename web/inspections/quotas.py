"""Limit how many inspections an account starts or, while access is open, a client address."""

from typing import Final

from flask import request

from shared.fetch.addresses import client_key
from shared.inspections.recipes import Describe, Recipe
from web.http import rate_limit_headers
from web.http.authentication import current_principal
from web.http.rate_limits import QuotaPolicy
from web.services import Services

_WINDOW_S: Final = 60
_REACHED: Final = "Too many inspections were started in the last minute"


def subject(services: Services) -> str:
    """Return who starts the inspections of the current request: an account, or the key of a client address."""
    return current_principal().account if services.settings.access.is_on else client_key(request.remote_addr or "")


def count(services: Services, recipe: Recipe) -> bool:
    """Count a new inspection of the current request, and a dream if it includes one.

    :returns: whether Redis has counted. If not, it does not respond, so this process has counted for itself.
    :raises RateExceeded: when the quota is used up.
    """
    inspect = services.settings.inspect
    policies = [QuotaPolicy("inspections", inspect.per_minute, _WINDOW_S)]
    if isinstance(recipe, Describe) and recipe.dream is not None:
        policies.append(QuotaPolicy("dreams", inspect.dreams_per_minute, _WINDOW_S))
    is_shared = True
    for policy in policies:
        usage = services.rate_limiter.require(policy, subject(services), reason=_REACHED)
        rate_limit_headers.show(usage)
        is_shared = is_shared and usage.is_shared
    return is_shared
