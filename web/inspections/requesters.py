"""Answer the addresses of inspections and results only to the accounts that requested them, and to signed URLs.

While access is open, all clients share one account, so nothing is recorded and every address is answered.
"""

from shared.accounts.permissions import SIGNED
from shared.errors import NotFound
from web.http.authentication import current_principal
from web.services import Services


def permit(services: Services, *address_ids: str) -> None:
    """Permit the account of the current request to read these inspections and results for a day.

    :raises StoreAway: when MongoDB does not respond.
    """
    principal = current_principal()
    if services.settings.access.is_on and principal is not SIGNED:
        for address_id in address_ids:
            services.requesters.add(principal.account, address_id)


def check(services: Services, address_id: str, detail: str) -> None:
    """Refuse the current request if its account did not request this inspection or result within a day.

    :param detail: the sentence of the error for an unknown id.
    :raises NotFound: when the account may not read it.
    :raises StoreAway: when MongoDB does not respond.
    """
    principal = current_principal()
    if services.settings.access.is_on and principal is not SIGNED and not services.requesters.includes(principal.account, address_id):
        raise NotFound(detail)
