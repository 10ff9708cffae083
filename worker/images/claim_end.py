"""End claims: release the images without a result, and close the batches of the others."""

from collections.abc import Iterable

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import Environment
from shared.ledger import claims, closing
from shared.storage.mongo import Document
from worker.images.attempt_times import AttemptTimes
from worker.runtime.lease_keeper import LeaseKeeper
from worker.spools.settler import Settler


class ClaimEnd:
    """Ends the claims that were made under one owner name."""

    def __init__(self, stores: Stores, owner: str, leases: LeaseKeeper, times: AttemptTimes, settler: Settler) -> None:
        """Set what the end of a claim affects.

        :param leases: the leases that the owner holds. The leases of released images are dropped.
        :param times: what the attempts of the owner take. Those that are released are dropped.
        :param settler: gets the batches that are closed.
        """
        self._db, self._owner = stores.db, owner
        self._leases, self._times, self._settler = leases, times, settler

    def release(
        self,
        images: Iterable[Document],
        reason: str,
        *,
        delay: bool = True,
        solo: bool = False,
        fault: bool = False,
        loss: bool = False,
        read_error: bool = False,
    ) -> None:
        """Release images; see ``claims.release``. If MongoDB does not respond, their leases will expire."""
        leases = [claims.LEASES.lease(image) for image in images]
        self._leases.drop(leases)
        self._times.drop(leases)
        try:
            claims.release(
                self._db, self._owner, leases, reason, delay=delay, solo=solo, fault=fault, loss=loss, read_error=read_error
            )
        except Environment:
            return

    def close_batches(self, claim: claims.Claim) -> None:
        """Close the finished batches of a claim. If MongoDB does not respond, the sweep will close them."""
        failpoints.reach("7-before-close")
        try:
            closed = closing.close_batches(self._db, {image["batch_id"] for image in claim.images})
        except Environment:
            return
        self._settler.submit(closed)
